"""Time models, training steps and the loader against one another, interleaved."""
