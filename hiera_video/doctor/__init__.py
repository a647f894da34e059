"""Diagnose a machine and an installation."""
