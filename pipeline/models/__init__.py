"""The engines that answer the questions of a benchmark."""
