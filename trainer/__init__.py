"""Training: the place for the loop and its stages. This version evaluates; `lbk_entry.py train` says so."""
