"""Serve a local web page for trying a model."""
