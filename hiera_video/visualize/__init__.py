"""Draw what models see: evidence for a class, masks, reconstructions, labels in a video."""
