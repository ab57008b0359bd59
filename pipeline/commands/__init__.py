"""The commands of ``lbk_entry.py`` that evaluate and inspect. Importing this loads no torch."""
