"""Tar shards of videos: their index, their order, and a local cache of remote shards."""
