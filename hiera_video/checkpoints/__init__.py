"""Checkpoint files: find, read and check one, and fit its weights to a model."""
