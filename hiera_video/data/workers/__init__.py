"""A pool of worker processes whose tasks may hang or crash."""
