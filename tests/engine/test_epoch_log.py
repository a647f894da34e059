"""What the log of an epoch measures with."""

import numpy as np

from hiera_video.engine.epoch_log import Mean, Stopwatch
from hiera_video.utils.machine import clock


def test_meters():
    mean = Mean()
    assert np.isnan(mean.value)
    mean.add(1.0, 3)
    mean.add(5.0)
    assert mean.value == 2.0
    assert clock(3725.4) == "1:02:05"
    watch = Stopwatch()
    assert list(watch.waiting(iter([1, 2]))) == [1, 2]
    assert 0 <= watch.wait_share <= 1
