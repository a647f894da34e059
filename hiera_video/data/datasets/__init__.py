"""Readers of datasets, one file each: `read_index(data_dir, split, ...)` and `class_names`."""
