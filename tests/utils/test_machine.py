"""The cores that a process may use, and times as people read them."""

import os

from hiera_video.utils import machine


def test_usable_cores_are_those_of_the_process(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert machine.usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


def test_a_clock_has_hours() -> None:
    assert machine.clock(3725.6) == "1:02:06"
