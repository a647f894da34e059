import math

import numpy as np
import pytest

from hiera_video.data import sampling
from hiera_video.data.sampling import ClipSpec
from hiera_video.utils.errors import UserError


def dense(num_video_frames, fps=30.0, *, frames=16, rate=4, target=30.0, position=0.5):
    clip = ClipSpec(frames, rate, target)
    return sampling.dense_indices(clip, num_video_frames, fps, position=position)


@pytest.mark.parametrize(
    ("num_video_frames", "fps", "frames", "rate", "position", "expected"),
    [
        # 16x4 of a ten-second Kinetics video: a spacing of 4, and 239 frames to slide over.
        (300, 30.0, 16, 4, 0.0, list(range(0, 61, 4))),
        (300, 30.0, 16, 4, 0.5, list(range(120, 181, 4))),
        (300, 30.0, 16, 4, 1.0, list(range(239, 300, 4))),
        # Odd spacings stay even too, wherever the clip begins.
        (100, 30.0, 4, 3, 0.5, [45, 48, 51, 54]),
        # Twice the rate: twice the spacing, so that the clip lasts as long.
        (600, 60.0, 16, 4, 0.0, list(range(0, 121, 8))),
        # 25 a second: 3.33 frames, each rounded by itself.
        (250, 25.0, 6, 4, 0.0, [0, 3, 7, 10, 13, 17]),
        # Halves go up: 2.5 at 12.5 fps is 0, 2.5, 5, 7.5 -> 0, 3, 5, 8.
        (100, 12.5, 4, 6, 0.0, [0, 3, 5, 8]),
        # Slower than asked for: frames are repeated in time, not made up.
        (100, 10.0, 5, 1, 0.0, [0, 0, 1, 1, 1]),
        # Exactly as long as the clip, and shorter: the last frame stands for what is not there.
        (61, 30.0, 16, 4, 1.0, list(range(0, 61, 4))),
        (10, 30.0, 6, 4, 0.0, [0, 4, 8, 9, 9, 9]),
        (10, 30.0, 6, 4, 1.0, [0, 4, 8, 9, 9, 9]),
        (1, 30.0, 4, 4, 0.5, [0, 0, 0, 0]),
        # One frame: the middle one.
        (301, 30.0, 1, 4, 0.5, [150]),
    ],
)
def test_dense_table(num_video_frames, fps, frames, rate, position, expected) -> None:
    indices = dense(num_video_frames, fps, frames=frames, rate=rate, position=position)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize("fps", [None, 0, 0.0, -1.0, math.nan, math.inf])
def test_an_unknown_rate_is_taken_for_the_target(fps) -> None:
    assert np.array_equal(dense(300, fps), dense(300, 30.0))
    assert np.array_equal(dense(300, fps, target=12.0), dense(300, 12.0, target=12.0))


@pytest.mark.parametrize(
    ("num_video_frames", "frames", "offset", "expected"),
    [
        (8, 4, 0.0, [0, 2, 4, 6]),
        (8, 4, 0.5, [1, 3, 5, 7]),
        (49, 16, 0.5, [1, 4, 7, 10, 13, 16, 19, 22, 26, 29, 32, 35, 38, 41, 44, 47]),
        (3, 6, 0.0, [0, 0, 1, 1, 2, 2]),
        (1, 3, 0.99, [0, 0, 0]),
        (7, 7, 0.5, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_uniform_table(num_video_frames, frames, offset, expected) -> None:
    indices = sampling.uniform_indices(num_video_frames, num_frames=frames, offset=offset)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


def test_dense_holds_for_any_video() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        num_video_frames = int(rng.integers(1, 2000))
        frames = int(rng.integers(1, 65))
        rate = float(rng.choice([1, 2, 3, 4, 8, 2.5]))
        fps = float(rng.choice([5, 10, 12, 15, 23.976, 24, 25, 29.97, 30, 50, 60, 1e6]))
        position = float(rng.choice([0.0, 1.0, rng.random()]))
        indices = dense(num_video_frames, fps, frames=frames, rate=rate, position=position)
        assert indices.shape == (frames,)
        assert indices.min() >= 0
        assert indices.max() <= num_video_frames - 1
        assert np.all(np.diff(indices) >= 0)
        offsets = indices - indices[0]
        ideal = np.minimum(np.arange(frames) * rate * fps / 30.0, num_video_frames - 1)
        assert np.abs(offsets - ideal).max() <= 0.5 + 1e-9
        slack = num_video_frames - 1 - offsets[-1]
        assert abs(indices[0] - position * slack) <= 0.5 + 1e-9


def test_uniform_holds_for_any_video() -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        num_video_frames = int(rng.integers(1, 500))
        frames = int(rng.integers(1, 65))
        drawn = rng if rng.random() < 0.5 else None
        indices = sampling.uniform_indices(
            num_video_frames, num_frames=frames, rng=drawn, offset=float(rng.random())
        )
        borders = np.arange(frames + 1) * num_video_frames / frames
        assert indices.shape == (frames,)
        assert indices.min() >= 0
        assert indices.max() <= num_video_frames - 1
        assert np.all(indices + 1 > borders[:-1])
        assert np.all(indices <= borders[1:])


def train(kind, num_video_frames, rng):
    clip = ClipSpec(4, 2, 30.0, kind)
    return sampling.training_indices(clip, num_video_frames, 30.0, rng=rng)


def test_training_clips_begin_everywhere_equally_often() -> None:
    rng = np.random.default_rng(0)
    starts = [train("dense", 12, rng)[0] for _ in range(6000)]
    counts = np.bincount(starts)
    assert len(counts) == 6  # frames 0..5: 5 + 6 is the last frame, 11
    assert counts.min() > 850
    assert counts.max() < 1150


def test_uniform_training_draws_every_frame_of_a_segment() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([train("uniform", 12, rng) for _ in range(300)])
    for segment in range(4):
        assert set(drawn[:, segment]) == {3 * segment, 3 * segment + 1, 3 * segment + 2}


@pytest.mark.parametrize("kind", ["dense", "uniform"])
def test_training_is_a_function_of_the_generator(kind) -> None:
    first, second = (train(kind, 200, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, train(kind, 200, np.random.default_rng(8)))


def clips_of_test(kind, num_video_frames, num_clips, frames=16):
    clip = ClipSpec(frames, 4, 30.0, kind)
    return sampling.testing_indices(clip, num_video_frames, 30.0, num_clips=num_clips)


def test_dense_test_clips_spread_from_end_to_end() -> None:
    clips_VT = clips_of_test("dense", 300, 5)
    assert clips_VT.shape == (5, 16)
    assert clips_VT.dtype == np.int64
    assert clips_VT[:, 0].tolist() == [0, 60, 120, 179, 239]
    assert clips_VT[-1, -1] == 299
    assert np.all(np.diff(clips_VT, axis=1) == 4)


def test_uniform_test_clips_interleave() -> None:
    clips_VT = clips_of_test("uniform", 32, 2, frames=8)
    assert clips_VT.tolist() == [list(range(1, 32, 4)), list(range(3, 32, 4))]


@pytest.mark.parametrize("kind", ["dense", "uniform"])
def test_one_test_clip_is_the_middle_one(kind) -> None:
    middle = dense(300) if kind == "dense" else sampling.uniform_indices(300, num_frames=16)
    assert np.array_equal(clips_of_test(kind, 300, 1), middle[None])


def test_bad_arguments_name_themselves() -> None:
    with pytest.raises(UserError, match=r"DATA\.SAMPLING must be one of dense, uniform"):
        train("sparse", 10, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"DATA\.SAMPLING"):
        clips_of_test("Dense", 10, 1)
    with pytest.raises(ValueError, match="at least 1 frame"):
        dense(0)
    with pytest.raises(ValueError, match="position"):
        dense(10, position=1.1)
    with pytest.raises(ValueError, match="offset"):
        sampling.uniform_indices(10, num_frames=2, offset=1.0)
    with pytest.raises(ValueError, match="num_clips"):
        clips_of_test("dense", 10, 0)
    with pytest.raises(ValueError, match="sampling_rate"):
        dense(10, rate=0)
    with pytest.raises(ValueError, match="at least 1 frame"):
        ClipSpec(0, 4, 30.0)


def test_a_clip_knows_its_rate_and_its_spacing() -> None:
    clip = ClipSpec(16, 4, 30.0)
    assert clip.spacing_sec == 4 / 30
    assert [clip.rate_of(fps) for fps in (25.0, None, 0, -1.0, math.nan)] == [25.0] + 4 * [30.0]
