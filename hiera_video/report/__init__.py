"""What finished runs have left behind, as one html page: `write.py`."""
