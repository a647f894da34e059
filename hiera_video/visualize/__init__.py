"""Draw evidence for a class, masks and reconstructions, and labels in a video."""
