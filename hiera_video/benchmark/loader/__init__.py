"""Time the loader against plain decoding."""
