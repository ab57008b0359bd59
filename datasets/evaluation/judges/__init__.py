"""Judges: a language model asked about answers that no rule can settle, behind one interface.

``base.py`` says what is asked and what comes back, ``chat.py`` speaks to a server, ``cache.py`` keeps its replies,
``options.py`` holds the settings, ``recorded.py`` reads and writes verdicts; the other modules hold a prompt each, with
the parser of its replies. Nothing here imports the client library before a judge is really asked.
"""
