"""From records to model inputs, without torch."""
