import numpy as np
import pytest

from hiera_video.data.order import EpochBatchSampler, part_of_batch


def parts(num_videos, world_size, *, batch_size=8, shuffle=True, epoch=3, first=0):
    """The batches of each process, as lists of video indices."""
    samplers = [
        EpochBatchSampler(
            num_videos,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=5,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.epoch, sampler.first = epoch, first
    return [[[index for _, index in batch] for batch in sampler] for sampler in samplers]


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_a_training_batch_is_the_same_videos_for_any_number_of_processes(world_size):
    (alone,) = parts(50, 1)
    for batch, *shares in zip(alone, *parts(50, world_size), strict=True):
        assert len(batch) == 8
        assert sorted(batch) == sorted(index for share in shares for index in share)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_reads_a_batch_as_it_is_drawn():
    (alone,) = parts(50, 1)
    order = EpochBatchSampler(50, batch_size=50, shuffle=True, seed=5)
    order.epoch = 3
    assert [index for batch in alone for index in batch] == [i for _, i in next(iter(order))][:48]


def test_a_run_that_goes_on_with_other_processes_reads_what_is_left():
    (alone,) = parts(50, 1)
    rest = parts(50, 2, first=4)
    assert [sorted(one + other) for one, other in zip(*rest, strict=True)] == [
        sorted(batch) for batch in alone[4:]
    ]


@pytest.mark.parametrize(("size", "world_size"), [(8, 1), (8, 2), (8, 4), (12, 3), (7, 1)])
def test_mirrored_places_are_together(size, world_size):
    """Clip i of a process and its mirror image there are so in the whole batch too."""
    for rank in range(world_size):
        places = part_of_batch(size, rank, world_size)
        assert (places == size - 1 - places[::-1]).all()


@pytest.mark.parametrize(("size", "world_size"), [(6, 2), (7, 2), (9, 3), (10, 4), (3, 5), (1, 2)])
def test_odd_shares_hold_each_place_once(size, world_size):
    shares = [part_of_batch(size, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares)) == list(range(size))
    assert all((np.diff(share) > 0).all() for share in shares)


@pytest.mark.parametrize(("num_videos", "world_size"), [(21, 2), (21, 3), (16, 4), (3, 5), (0, 2)])
def test_an_evaluation_reads_each_batch_in_one_process(num_videos, world_size):
    (alone,) = parts(num_videos, 1, batch_size=2, shuffle=False)
    shared = parts(num_videos, world_size, batch_size=2, shuffle=False)
    assert sorted(batch for share in shared for batch in share) == alone
    assert max(map(len, shared)) - min(map(len, shared)) <= 1
