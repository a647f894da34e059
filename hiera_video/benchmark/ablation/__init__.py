"""Measure any list of configs side by side, in rounds that can be interrupted and resumed."""
