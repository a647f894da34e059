"""Synthetic videos for the demo and the tests."""
