"""Read data sets, one module each with `read_index(data_dir, split, ...)` and `class_names`."""
