"""Experiments: one file a question."""
