"""The commands: each file reads one command line and calls the rooms that do its work."""

import os

# Read once, when PyTorch is imported. By default its threads spin while they wait for one another;
# where another program needs a core, a run on the CPU is then many times slower (docs/faq.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
