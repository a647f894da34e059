"""The commands: each file reads one command line and calls the rooms that do its work."""
