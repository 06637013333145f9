"""Fuzzing of everything that reads a file or takes an input: `python -m tests.fuzz` from the root of the repository."""
