"""An evaluation run: its plan, the division of questions, the loop, the journal and the run's identity."""
