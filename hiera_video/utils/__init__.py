"""Helpers that every package may import: errors, files, names, repairs of dependencies."""
