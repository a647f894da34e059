"""Write one html page about finished runs, from the files in their folders: `write.py`."""
