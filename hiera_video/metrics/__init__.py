"""Metrics on scores: top-k accuracy, ensembles of views, the confusion matrix."""
