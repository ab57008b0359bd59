"""What a run stands on: processes, console, files, locks and errors; nothing here knows a benchmark."""
