"""Videos of numbered frames go in; which frames, crops and labels come out is read off them."""

from functools import partial

import numpy as np
import pytest
import torch

from hiera_video.data import sampling
from hiera_video.data.dataset import MAX_TRIES, TestViews, TrainViews, VideoDataset
from hiera_video.data.records import VideoRecord
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform

NUM_FRAMES = 20  # of a video; a clip is 4 of them, 2 apart, and can begin at frame 0 to 13
DENSE = sampling.ClipSpec(4, 2, 30.0)
# Different for each channel, and mean and std no number in common: a swap shows.
MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.35)


def normalised(frames_THWC):
    return ((frames_THWC / 255 - MEAN) / STD).transpose(3, 0, 1, 2)


@pytest.fixture(scope="module")
def numbered(index_frames, make_video, tmp_path_factory):
    """Three videos of 64 x 64 px without loss: video k shows the numbers 20 k to 20 k + 19."""
    folder = tmp_path_factory.mktemp("numbered")
    frames_THWC = index_frames(3 * NUM_FRAMES, height=64, width=64)
    paths = [
        make_video(
            folder / f"{video}.mkv",
            frames_THWC[NUM_FRAMES * video :][:NUM_FRAMES],
            codec="ffv1",
            pix_fmt="bgr0",
        )
        for video in range(3)
    ]
    return [VideoRecord(path, 10 + video, 70 + video) for video, path in enumerate(paths)]


@pytest.fixture(scope="module")
def numbers_of(decode_index):
    """Read the frame numbers of a whole frame's clip, `[3, T, 64, 64]` normalised."""

    def read(clip_CTHW):
        frames_THWC = (clip_CTHW.numpy().transpose(1, 2, 3, 0) * STD + MEAN) * 255
        return [decode_index(frame_HWC) for frame_HWC in frames_THWC]

    return read


def fixed_views():
    return TestViews(
        sample_frames=partial(sampling.testing_indices, DENSE, num_clips=3),
        transform=TestTransform(crop_size=48, num_crops=3, mean=MEAN, std=STD),
    )


def train_views(num_views=1, **changed):
    settings = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": False} | changed
    transform = TrainTransform(
        crop_size=64,
        policy=None,
        erase_probability=0.0,
        erase_mode="pixel",
        mean=MEAN,
        std=STD,
        **settings,
    )
    return TrainViews(
        sample_frames=partial(sampling.training_indices, DENSE),
        transform=transform,
        num_views=num_views,
    )


def dataset(records, make_views, *, seed=0, replace_bad=False):
    return VideoDataset(
        records, make_views=make_views, backend="pyav", seed=seed, replace_bad=replace_bad
    )


@pytest.mark.parametrize("tall", [False, True])
def test_test_views_are_every_crop_of_the_first_clip_then_of_the_next(
    index_frames, make_video, tmp_path, tall
):
    frames_THWC = index_frames(NUM_FRAMES, height=48, width=64)
    if tall:
        frames_THWC = frames_THWC.transpose(0, 2, 1, 3)
    path = make_video(tmp_path / "wide.mkv", frames_THWC, codec="ffv1", pix_fmt="bgr0")
    sample = dataset([VideoRecord(path, 5, 6)], fixed_views())[0, 0]
    expected = []
    for start in (0, 7, 13):  # the first, the middle and the last place of 0 to 13
        for corner in (0, 8, 16):
            box = (slice(corner, corner + 48), slice(None))
            rows, columns = box if tall else box[::-1]
            expected.append(normalised(frames_THWC[start : start + 7 : 2, rows, columns]))
    assert sample.views.shape == (9, 3, 4, 48, 48)
    np.testing.assert_allclose(sample.views.numpy(), np.stack(expected), atol=1e-5)
    assert (sample.label, sample.video_index, sample.failures) == (5, 6, ())


def test_test_views_are_the_same_in_every_epoch(numbered):
    videos = dataset(numbered, fixed_views())
    other_seed = dataset(numbered, fixed_views(), seed=1)
    assert torch.equal(videos[0, 1].views, videos[5, 1].views)
    assert torch.equal(videos[0, 1].views, other_seed[0, 1].views)


def test_a_training_clip_runs_forwards_from_a_start_drawn_anew_in_every_epoch(numbered, numbers_of):
    videos = dataset(numbered, train_views())
    starts = {index: [] for index in range(3)}
    for epoch in range(30):
        for index in range(3):
            sample = videos[epoch, index]
            numbers = numbers_of(sample.views[0])
            start = numbers[0] - NUM_FRAMES * index
            assert numbers == [NUM_FRAMES * index + start + 2 * t for t in range(4)]
            assert 0 <= start <= 13
            assert (sample.label, sample.video_index) == (10 + index, 70 + index)
            starts[index].append(start)
    assert all(len(set(drawn)) > 6 for drawn in starts.values())
    assert starts[0] != starts[1] != starts[2]


def test_a_training_sample_depends_on_seed_epoch_and_video_alone(numbered):
    jitter = train_views(scale=(0.1, 1.0), flip=True)
    videos, again = dataset(numbered, jitter), dataset(numbered, jitter)
    backwards = [again[epoch, 2].views for epoch in (3, 2, 1, 0)][::-1]
    for epoch, expected in enumerate(backwards):
        assert torch.equal(videos[epoch, 2].views, expected)
    other_seed = dataset(numbered, jitter, seed=1)
    same = [torch.equal(other_seed[e, 2].views, backwards[e]) for e in range(4)]
    assert not any(same)


def test_training_views_of_a_video_are_cut_differently_from_the_same_frames(numbered, numbers_of):
    whole = dataset(numbered, train_views(num_views=4))[0, 1]
    clips = [numbers_of(view) for view in whole.views]
    assert len(clips) == 4
    assert all(clip == clips[0] for clip in clips)
    cut = dataset(numbered, train_views(num_views=4, scale=(0.1, 0.9)))[0, 1].views
    for one in range(4):
        assert not any(torch.equal(cut[one], cut[other]) for other in range(one))


@pytest.fixture
def with_bad(numbered, tmp_path):
    """The three videos behind a file that is none."""
    (tmp_path / "bad.mkv").write_bytes(b"no video at all")
    return [VideoRecord(str(tmp_path / "bad.mkv"), 3, 69), *numbered]


def test_a_replacement_brings_its_own_label_and_index(with_bad, numbers_of):
    videos = dataset(with_bad, train_views(), replace_bad=True)
    seen = set()
    for epoch in range(20):
        sample = videos[epoch, 0]
        video = numbers_of(sample.views[0])[0] // NUM_FRAMES  # what the pixels say
        assert (sample.label, sample.video_index) == (10 + video, 70 + video)
        assert {failure.path for failure in sample.failures} == {with_bad[0].path}
        assert with_bad[0].path in sample.failures[0].reason
        seen.add(video)
    assert seen == {0, 1, 2}
    again = dataset(with_bad, train_views(), replace_bad=True)
    assert [again[e, 0].label for e in range(9)] == [videos[e, 0].label for e in range(9)]


def test_a_bad_video_of_an_evaluation_keeps_its_place_without_views(with_bad):
    videos = dataset(with_bad, fixed_views(), replace_bad=False)
    sample = videos[0, 0]
    assert sample.views is None
    assert (sample.label, sample.video_index) == (3, 69)
    assert [failure.path for failure in sample.failures] == [with_bad[0].path]
    assert len(videos) == 4


def test_replacing_ends_after_some_tries(with_bad):
    sample = dataset(with_bad[:1], train_views(), replace_bad=True)[0, 0]
    assert sample.views is None
    assert len(sample.failures) == MAX_TRIES
