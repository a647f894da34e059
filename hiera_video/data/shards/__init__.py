"""Shards: tar files of videos, their index, their order, and local copies of remote ones."""
