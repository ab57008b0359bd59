"""Looking at results: the predictions file, the report page, comparisons, tables and figures. No torch."""
