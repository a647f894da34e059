"""Time models, training steps and data loading against references, in interleaved runs."""
