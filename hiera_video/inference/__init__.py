"""Use trained models: predictions, windows over time, streams, features."""
