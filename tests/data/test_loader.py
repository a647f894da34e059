"""Order and batches: what an epoch reads, and how views are stacked."""

import copy
import os
import signal
import time
from functools import partial

import pytest
import torch

from hiera_video.data.dataset import Failure, Sample, TrainViews, VideoDataset
from hiera_video.data.loader import BatchLoader, collate
from hiera_video.data.order import EpochBatchSampler
from hiera_video.data.records import VideoRecord
from hiera_video.data.sampling import ClipSpec, training_indices
from hiera_video.data.transforms.pipeline import TrainTransform


def sampler(num_videos, *, batch_size, shuffle=True, seed=0):
    return EpochBatchSampler(num_videos, batch_size=batch_size, shuffle=shuffle, seed=seed)


def batches_of(batch_sampler, epoch):
    """Return the videos of each batch; every key must carry the epoch."""
    batch_sampler.epoch = epoch
    batches = list(batch_sampler)
    assert len(batches) == len(batch_sampler)
    assert {key_epoch for batch in batches for key_epoch, _ in batch} == {epoch}
    return [[index for _, index in batch] for batch in batches]


def order_of(batch_sampler, epoch):
    return [index for batch in batches_of(batch_sampler, epoch) for index in batch]


def test_every_epoch_has_its_own_order_and_keeps_it():
    videos = sampler(12, batch_size=4)
    orders = [order_of(videos, epoch) for epoch in range(6)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert list(range(12)) not in orders
    assert [order_of(videos, epoch) for epoch in (5, 0)] == [orders[5], orders[0]]
    assert order_of(sampler(12, batch_size=4), 3) == orders[3]


def test_the_order_follows_the_seed():
    orders = {tuple(order_of(sampler(12, batch_size=4, seed=seed), 0)) for seed in range(5)}
    assert len(orders) == 5


def test_a_shuffled_epoch_leaves_a_partial_batch_out_but_no_video_for_good():
    videos = sampler(10, batch_size=4)
    left_out = set()
    for epoch in range(60):
        batches = batches_of(videos, epoch)
        assert [len(batch) for batch in batches] == [4, 4]
        read = {index for batch in batches for index in batch}
        assert len(read) == 8
        left_out |= set(range(10)) - read
    assert left_out == set(range(10))


def test_a_shuffled_epoch_smaller_than_a_batch_is_one_batch():
    (batch,) = batches_of(sampler(3, batch_size=4), 0)
    assert sorted(batch) == [0, 1, 2]


def test_an_evaluation_reads_every_video_in_the_order_of_the_list():
    videos = sampler(10, batch_size=4, shuffle=False)
    for epoch in (0, 1):
        assert batches_of(videos, epoch) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def sample_of(value, *, num_views, failures=()):
    views_VCTHW = torch.arange(num_views).view(-1, 1, 1, 1, 1) + 10.0 * value
    return Sample(views_VCTHW.expand(-1, 3, 2, 4, 4), value, 100 + value, failures)


def test_views_of_a_video_lie_side_by_side_with_its_label_and_index():
    batch = collate([sample_of(7, num_views=3), sample_of(2, num_views=3)])
    assert batch.clips_BCTHW.shape == (6, 3, 2, 4, 4)
    assert batch.clips_BCTHW[:, 0, 0, 0, 0].tolist() == [70, 71, 72, 20, 21, 22]
    assert batch.labels_B.tolist() == [7, 7, 7, 2, 2, 2]
    assert batch.video_indices_B.tolist() == [107, 107, 107, 102, 102, 102]
    assert batch.labels_B.dtype == batch.video_indices_B.dtype == torch.int64
    assert len(batch) == 6


def test_samples_without_views_leave_their_failures_only():
    first, second = Failure("a.mp4", "a.mp4: broken"), Failure("b.mp4", "b.mp4: broken")
    replaced = sample_of(4, num_views=2, failures=(second,))
    batch = collate([Sample(None, 1, 101, (first,)), replaced])
    assert batch.labels_B.tolist() == [4, 4]
    assert batch.video_indices_B.tolist() == [104, 104]
    assert batch.failures == (first, second)
    nothing = collate([Sample(None, 1, 101, (first,))])
    assert len(nothing) == 0
    assert nothing.failures == (first,)


@pytest.fixture(scope="module")
def dataset(index_frames, make_video, tmp_path_factory):
    """Six videos of 12 frames, of which a training clip takes random ones."""
    folder = tmp_path_factory.mktemp("loader")
    frames_THWC = index_frames(12, height=32, width=64)
    path = make_video(folder / "one.mkv", frames_THWC, codec="ffv1", pix_fmt="bgr0")
    transform = TrainTransform(
        crop_size=32,
        scale=(0.2, 1.0),
        aspect=(0.75, 1.3333),
        flip=True,
        policy=None,
        erase_probability=0.0,
        erase_mode="pixel",
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
    )
    sample_frames = partial(training_indices, ClipSpec(2, 1, 30.0, "uniform"))
    return VideoDataset(
        [VideoRecord(path, index, index) for index in range(6)],
        make_views=TrainViews(sample_frames=sample_frames, transform=transform, num_views=2),
        backend="pyav",
        seed=0,
        replace_bad=True,
    )


def loader(dataset, *, num_workers=0):
    return BatchLoader(
        dataset,
        sampler(len(dataset), batch_size=2),
        num_workers=num_workers,
        pin_memory=False,
        keep_workers=True,
    )


def test_the_loader_hands_the_epoch_to_order_and_samples(dataset):
    videos = loader(dataset)
    assert len(videos) == 3
    epochs = [list(videos.batches(epoch)) for epoch in range(4)]
    orders = [[i for batch in epoch for i in batch.video_indices_B.tolist()] for epoch in epochs]
    assert all(sorted(order) == [i // 2 for i in range(12)] for order in orders)
    assert len({tuple(order) for order in orders}) == 4

    def clips_of_video_0(epoch):
        return torch.cat([batch.clips_BCTHW[batch.video_indices_B == 0] for batch in epoch])

    views = [clips_of_video_0(epoch) for epoch in epochs]
    assert all(len(clips) == 2 for clips in views)
    for one in range(4):
        assert not any(torch.equal(views[one], views[other]) for other in range(one))


def test_kept_worker_processes_read_what_this_one_does(dataset):
    alone, workers = loader(dataset), loader(dataset, num_workers=2)
    for epoch in (0, 1, 0):
        pairs = zip(alone.batches(epoch), workers.batches(epoch), strict=True)
        for here, there in pairs:
            assert here.video_indices_B.tolist() == there.video_indices_B.tolist()
            assert torch.equal(here.clips_BCTHW, there.clips_BCTHW)


def test_the_loader_begins_with_any_batch(dataset):
    for num_workers in (0, 2):
        videos = loader(dataset, num_workers=num_workers)
        whole = [batch.video_indices_B.tolist() for batch in videos.batches(5)]
        assert [b.video_indices_B.tolist() for b in videos.batches(5, first=1)] == whole[1:]
        assert [b.video_indices_B.tolist() for b in videos.batches(5)] == whole
        videos.close()


@pytest.mark.parametrize("mode", ["pixel", "const"])
def test_clips_are_the_same_wherever_they_are_normalised(dataset, mode):
    transform = copy.copy(dataset.make_views.transform)
    transform.erase_probability, transform.erase_mode = 0.5, mode
    make_views = TrainViews(
        sample_frames=dataset.make_views.sample_frames, transform=transform, num_views=2
    )
    here, there = (
        VideoDataset(
            dataset.records,
            make_views=make_views,
            backend="pyav",
            seed=0,
            replace_bad=True,
            finish=finish,
        )
        for finish in (True, False)
    )
    erased = 0
    pairs = zip(loader(here).batches(), loader(there, num_workers=1).batches(), strict=True)
    for finished, pixels in pairs:
        assert pixels.clips_BCTHW.dtype == torch.uint8
        erased += sum(erasure is not None for erasure in pixels.erasures_B)
        on_device = pixels.to(torch.device("cpu"))
        assert torch.equal(on_device.clips_BCTHW, finished.clips_BCTHW)
        assert on_device.clips_BCTHW.is_contiguous()
        parts = [part.to(torch.device("cpu")).clips_BCTHW for part in pixels.split(3)]
        assert torch.equal(torch.cat(parts), finished.clips_BCTHW)
    assert 0 < erased < 12


class TrickyViews:
    """Hangs, crashes or is killed on its way, by the name of the file; otherwise as `views`."""

    def __init__(self, views, marks):
        self.views, self.marks, self.finish = views, marks, views.finish

    def __call__(self, reader, rng, allocate):
        name = os.path.basename(reader.path)
        if name.startswith("hang"):
            time.sleep(1000)
        elif name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        elif name.startswith("kill") and not os.path.exists(self.marks / name):
            (self.marks / name).touch()  # once only, as the kernel does that lacks memory
            os.kill(os.getpid(), signal.SIGKILL)
        return self.views(reader, rng, allocate)


def tricky(dataset, tmp_path, names, *, replace_bad):
    """Return the six videos and some more, whose names say what they do to a process."""
    records = list(dataset.records)
    for name in names:
        path = tmp_path / name
        path.symlink_to(records[0].path)
        records.append(VideoRecord(str(path), len(records), len(records)))
    return VideoDataset(
        records,
        make_views=TrickyViews(dataset.make_views, tmp_path),
        backend="pyav",
        seed=0,
        replace_bad=replace_bad,
    )


def read_all(videos, epoch, *, shuffle, num_workers=2):
    order = sampler(len(videos), batch_size=2, shuffle=shuffle)
    batches = BatchLoader(
        videos,
        order,
        num_workers=num_workers,
        pin_memory=False,
        keep_workers=False,
        deadline_sec=2.0,
    )
    return list(batches.batches(epoch))


def test_a_decoder_that_hangs_or_crashes_costs_an_evaluation_that_video_alone(dataset, tmp_path):
    names = ["hang.mkv", "crash.mkv", "kill.mkv"]
    videos = tricky(dataset, tmp_path, names, replace_bad=False)
    batches = read_all(videos, 0, shuffle=False)
    seen = torch.cat([batch.video_indices_B for batch in batches]).tolist()
    assert seen == [i for i in range(9) for _ in range(2) if i not in (6, 7)]
    hung, crashed = [failure for batch in batches for failure in batch.failures]
    assert hung.path.endswith("hang.mkv")
    assert "hung: took longer than 2 s (DATA_LOADER.TIMEOUT_SEC)" in hung.reason
    assert crashed.path.endswith("crash.mkv")
    assert "crashed: its process died (SIGSEGV)" in crashed.reason


def test_training_goes_on_past_a_decoder_that_hangs_with_every_other_sample(dataset, tmp_path):
    videos = tricky(dataset, tmp_path, ["hang 1.mkv", "hang 2.mkv"], replace_bad=True)
    for record in videos.records[6:]:
        assert os.path.exists(record.path)
    batches = read_all(videos, 1, shuffle=True)
    # As if the two had been files that do not decode: their places are taken, and no others.
    for name in ("hang 1.mkv", "hang 2.mkv"):
        (tmp_path / name).unlink()
    expected = read_all(videos, 1, shuffle=True, num_workers=0)
    assert len(batches) == len(expected) == 4
    for batch, plain in zip(batches, expected, strict=True):
        assert batch.video_indices_B.tolist() == plain.video_indices_B.tolist()
        assert torch.equal(batch.clips_BCTHW, plain.clips_BCTHW)
        assert [f.path for f in batch.failures] == [f.path for f in plain.failures]
    assert {f.path for b in batches for f in b.failures} == {r.path for r in videos.records[6:]}
