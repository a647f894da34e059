"""Run grids of settings, each a chain of pretraining, fine-tuning and test, and collect results."""
