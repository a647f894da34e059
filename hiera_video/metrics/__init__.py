"""What is measured of scores: top-k, ensembles of views, confusion."""
