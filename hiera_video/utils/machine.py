"""The cores and memory of this machine, and times in the form that people read."""

import os
from collections.abc import Iterable
from contextlib import suppress

_LIMITS = ("/sys/fs/cgroup/memory.max",)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(limits: Iterable[str] = _LIMITS) -> int | None:
    """Return the bytes left to this machine and container, None if the system does not say.

    `limits` are cgroup files of version 2. Pages of files that nothing uses count as free.
    """
    free = None
    with suppress(OSError, KeyError, ValueError), open("/proc/meminfo") as file:
        values = dict(line.split(":", 1) for line in file)
        free = int(values["MemAvailable"].split()[0]) * 1024
    for path in limits:
        with suppress(OSError, ValueError), open(path) as file:
            limit = int(file.read())  # "max" means no limit
            with open(path.replace("memory.max", "memory.current")) as used:
                left = limit - int(used.read())
            with suppress(OSError), open(path.replace("memory.max", "memory.stat")) as file:
                counts = dict(line.split() for line in file)
                left += int(counts.get("inactive_file", 0))
            free = max(left, 0) if free is None else min(free, max(left, 0))
    return free


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    minutes, sec = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}"
