"""A pool of worker processes that survives tasks that hang or crash."""
