"""Readers: release files into records. A declaration names one of `registry.READERS`."""
