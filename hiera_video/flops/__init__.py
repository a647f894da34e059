"""Count what a model costs: multiply-adds, parameters, activations."""
