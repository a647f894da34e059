"""The order over shards: each video once, few shards at a time, drawn from the generator alone."""

import numpy as np
import pytest

from hiera_video.data.shards.members import Member, remote_shard_numbers, shard_order


def test_remote_shards_are_numbered_and_others_need_no_order_of_their_own():
    paths = [Member(shard, "a.mp4", 512, 9).path for shard in ("s3://b", "s3://a", "s3://b")]
    assert remote_shard_numbers(paths).tolist() == [0, 1, 0]
    assert remote_shard_numbers([Member("/x.tar", "a.mp4", 512, 9).path]) is None
    assert remote_shard_numbers(["a.mp4", "http://host/b.mp4"]) is None
    assert remote_shard_numbers([]) is None


@pytest.mark.parametrize("window", [1, 3, 8, 50])
def test_an_order_has_each_video_once_and_few_shards_at_a_time(window):
    shard_of_video_N = np.random.default_rng(0).integers(20, size=1000)
    order_N = shard_order(shard_of_video_N, np.random.default_rng(1), window)
    np.testing.assert_array_equal(np.sort(order_N), np.arange(1000))
    # Each shard is used in one stretch, and at most two windows are under way at any time.
    shard_N = shard_of_video_N[order_N]
    places = [np.flatnonzero(shard_N == shard) for shard in range(20)]
    in_use_N = sum((np.arange(1000) >= p[0]) & (np.arange(1000) <= p[-1]) for p in places)
    assert in_use_N.max() <= window
    changes = np.count_nonzero(np.diff(shard_N))
    assert changes == 19 if window == 1 else changes > 500


def test_an_order_depends_on_its_generator_alone():
    shard_of_video_N = np.arange(300) // 30
    orders = [shard_order(shard_of_video_N, np.random.default_rng(seed), 4) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert shard_order(np.zeros(0, dtype=np.int32), np.random.default_rng(0)).tolist() == []
    with pytest.raises(ValueError, match="window must be 1 or more"):
        shard_order(shard_of_video_N, np.random.default_rng(0), 0)


def test_with_all_shards_in_the_window_every_place_is_as_likely_for_a_video():
    shard_of_video_N = np.arange(12) // 3
    rng = np.random.default_rng(0)
    places = [int(np.argmin(shard_order(shard_of_video_N, rng, 4))) for _ in range(2400)]
    counts = np.bincount(places, minlength=12)  # 200 each, give or take 5 deviations
    assert counts.min() > 130
    assert counts.max() < 270
