"""What readers share: tables, JSON lines, parquet, images in cells, and records that keep their faults apart."""
