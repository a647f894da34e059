"""Videos made small and quick to decode, and the lists that training reads: prepare_videos.

sources.py reads what there is, plan.py names what is to be written, encode.py and verify.py make
one file, journal.py remembers the finished ones, lists.py writes the csv files, and run.py drives.
"""
