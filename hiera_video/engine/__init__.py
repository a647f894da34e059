"""The loops: train, evaluate, checkpoint, log."""
