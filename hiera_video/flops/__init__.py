"""Count the multiply-adds, parameters and activations of a model."""
