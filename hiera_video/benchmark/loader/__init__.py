"""Time the loader against plain decoding and against decoding once per view."""
