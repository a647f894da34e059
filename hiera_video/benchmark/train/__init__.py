"""Time variants of a training step."""
