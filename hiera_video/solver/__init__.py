"""Optimizer, learning-rate schedule and losses."""
