"""Our scores next to those of the official scorers, benchmark by benchmark; `tests.parity.scores` is the command."""
