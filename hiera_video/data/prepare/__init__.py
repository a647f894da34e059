"""Re-encode videos to be small and quick to decode, and write the lists that training reads.

sources.py reads the dataset, plan.py names the outputs, encode.py and verify.py make one file,
journal.py records the finished files, lists.py writes the csv files, and run.py drives the rest.
"""
