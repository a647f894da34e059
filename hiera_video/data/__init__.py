"""Reading: lists of videos, decoders, sampling, transforms, and the loader over them."""
