"""Run on several processes: rendezvous, DDP, FSDP2, a watchdog."""
