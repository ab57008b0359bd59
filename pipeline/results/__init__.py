"""From replies to results: joined by id, scored, judged, reported, and read back from files."""
