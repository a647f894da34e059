"""Clips of videos with a variable frame rate follow the clock, whatever decodes them."""

from importlib.util import find_spec

import numpy as np
import pytest

from hiera_video.data import sampling
from hiera_video.data.decoders import open_video
from hiera_video.data.decoders._clock import Clock, steady_times

NEEDS_DECORD = pytest.mark.skipif(find_spec("decord") is None, reason="decord is not installed")
BACKENDS = ("pyav", pytest.param("decord", marks=NEEDS_DECORD))

# Half the frames at 20 per second, then twice as fast, then after a pause again at 20.
TIMES_MS = np.cumsum([0] + [50] * 15 + [25] * 12 + [400] + [50] * 11)
CODECS = {
    "mp4": {"bf": "2", "g": "12"},
    "mkv": {"bf": "2", "g": "12"},
    "nut": {"bf": "2", "g": "12"},
    "webm": {"codec": "libvpx", "g": "12", "b": "1M", "deadline": "realtime"},
}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, timed_video, index_frames):
    folder = tmp_path_factory.mktemp("uneven")
    frames_THWC = index_frames(len(TIMES_MS))
    return {
        kind: timed_video(folder / f"uneven.{kind}", frames_THWC, TIMES_MS, **options)
        for kind, options in CODECS.items()
    }


def on_screen(time_ms: float) -> int:
    """The last frame that is shown by then; times in files are rounded by up to a millisecond."""
    return max(k for k, shown_ms in enumerate(TIMES_MS) if shown_ms <= time_ms + 1)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *((kind, "pyav") for kind in CODECS),
        # decord is refused for nut.
        *(pytest.param(kind, "decord", marks=NEEDS_DECORD) for kind in CODECS if kind != "nut"),
    ],
)
def test_each_tick_shows_the_frame_on_screen_at_its_time(kind, backend, uneven, decode_index):
    with open_video(uneven[kind], backend) as reader:
        assert reader.num_frames == len(TIMES_MS)
        assert reader.fps == pytest.approx(40, rel=0.01)  # of the quicker part
        assert reader.num_ticks == pytest.approx(TIMES_MS[-1] / 25 + 1, abs=1)
        ticks = np.arange(reader.num_ticks)
        frames_THWC = reader.frames_at(reader.ticks_to_frames(ticks))
        expected = [on_screen(1000 * tick / reader.fps) for tick in ticks]
        assert [decode_index(frame) for frame in frames_THWC] == expected
        assert expected[-1] == len(TIMES_MS) - 1
        assert set(expected) == set(range(len(TIMES_MS)))


def test_a_clip_lasts_as_long_wherever_it_lies(uneven):
    clip = sampling.ClipSpec(4, 6, 30.0)  # 200 ms apart
    with open_video(uneven["mkv"]) as reader:
        for position in (0.0, 0.3, 0.5, 0.9, 1.0):
            ticks = sampling.dense_indices(clip, reader.num_ticks, reader.fps, position=position)
            assert ticks[-1] - ticks[0] == pytest.approx(0.6 * reader.fps, abs=1)
            start_ms = 1000 * ticks[0] / reader.fps
            shown = reader.ticks_to_frames(ticks)
            for frame, wanted_ms in zip(shown, start_ms + 200 * np.arange(4), strict=True):
                assert abs(int(frame) - on_screen(wanted_ms)) <= 1


def test_ticks_keep_their_shape_and_their_bounds(uneven, videos):
    for path in (uneven["mp4"], videos["h264_b.mp4"]):
        with open_video(path) as reader:
            assert reader.ticks_to_frames([[0, 1], [2, 3]]).shape == (2, 2)
            assert reader.ticks_to_frames([[0, 1]]).dtype == np.int64
            for bad in ([-1], [reader.num_ticks]):
                with pytest.raises(IndexError, match="ticks"):
                    reader.ticks_to_frames(bad)


def assert_frame_k_is_tick_k(path, *, num_frames, fps, backend="auto"):
    with open_video(path, backend) as reader:
        assert reader.num_ticks == reader.num_frames == num_frames
        assert reader.fps == pytest.approx(fps, rel=0.02)
        assert np.array_equal(reader.ticks_to_frames(range(num_frames)), range(num_frames))


@pytest.mark.parametrize("fps", [12, 23.976, 24, 29.97, 30, 60, 240])
@pytest.mark.parametrize("round_ms", [np.floor, np.round])
def test_rounded_times_are_a_constant_rate(fps, round_ms, tmp_path, timed_video, index_frames):
    times_ms = round_ms(1000 / fps * np.arange(40))
    path = timed_video(tmp_path / "a.mkv", index_frames(40), times_ms, codec="mpeg4")
    assert_frame_k_is_tick_k(path, num_frames=40, fps=fps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", ["h264_b.mp4", "h264_late_start.mkv", "mpeg4.avi", "vp8.webm", "vp9.webm"]
)
def test_videos_at_a_constant_rate_are_left_as_they_are(name, backend, videos):
    assert_frame_k_is_tick_k(videos[name], num_frames=40, fps=30, backend=backend)


@pytest.mark.parametrize("name", ["cut_off.mp4", "damaged.mp4"])
def test_damaged_files_are_left_as_they_are(name, bad_videos):
    assert_frame_k_is_tick_k(bad_videos[name], num_frames=40, fps=30)


@pytest.mark.parametrize(
    ("place", "extra_ms"),
    [(1, 70), (39, 5000), (39, 10_000_000), (1, 10_000_000), (20, 10_000_000)],
    ids=["late second", "held last", "absurd last", "absurd first", "absurd middle"],
)
def test_one_odd_step_is_no_variable_rate(place, extra_ms, tmp_path, timed_video, index_frames):
    times_ms = np.round(1000 / 30 * np.arange(40))
    times_ms[place:] += extra_ms
    path = timed_video(tmp_path / "a.mkv", index_frames(40), times_ms, codec="mpeg4")
    assert_frame_k_is_tick_k(path, num_frames=40, fps=30)


@pytest.mark.parametrize("jitter_ms", [5, 14])
def test_jitter_below_half_a_frame_is_a_constant_rate(
    jitter_ms, tmp_path, timed_video, index_frames
):
    rng = np.random.default_rng(0)
    times_ms = np.round(1000 / 30 * np.arange(40) + rng.uniform(0, jitter_ms, 40))
    path = timed_video(tmp_path / "a.mkv", index_frames(40), times_ms, codec="mpeg4")
    assert_frame_k_is_tick_k(path, num_frames=40, fps=30)


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_few_frames(num_frames, tmp_path, timed_video, index_frames):
    times_ms = np.array([0, 40, 80])[:num_frames]
    path = timed_video(tmp_path / "a.mkv", index_frames(num_frames), times_ms, codec="mpeg4")
    with open_video(path) as reader:
        assert reader.num_ticks == num_frames
        assert list(reader.ticks_to_frames(range(num_frames))) == list(range(num_frames))


def test_a_burst_of_tiny_steps_does_not_make_ticks_without_number(
    tmp_path, timed_video, index_frames
):
    times_ms = np.cumsum([0] + [1, 80] * 20)
    path = timed_video(tmp_path / "a.mkv", index_frames(41), times_ms, codec="mpeg4")
    with open_video(path) as reader:
        assert reader.num_ticks <= 10 * reader.num_frames


def test_a_tick_is_as_long_as_some_frame_is_shown(tmp_path, timed_video, index_frames):
    """Four of forty steps are quick, so that the quantile lies between those and the others."""
    times_ms = np.cumsum([0] + [50] * 18 + [20] * 4 + [50] * 18)
    path = timed_video(tmp_path / "a.mkv", index_frames(41), times_ms, codec="mpeg4")
    with open_video(path) as reader:
        assert reader.fps == pytest.approx(50)
        assert reader.num_ticks == times_ms[-1] / 20 + 1


def test_gif_by_its_delays(tmp_path, timed_video, index_frames, decode_index):
    times_ms = np.cumsum([0] + [100] * 10 + [300] * 10)
    path = timed_video(tmp_path / "a.gif", index_frames(21), times_ms, codec="gif", pix_fmt="rgb8")
    with open_video(path) as reader:
        assert reader.fps == pytest.approx(10)
        assert reader.num_ticks == 41
        shown = reader.frames_at(reader.ticks_to_frames([0, 9, 10, 11, 13, 16, 40]))
        assert [decode_index(frame) for frame in shown] == [0, 9, 10, 10, 11, 12, 20]


def test_a_clock_goes_on_whatever_the_senders_does():
    clock = Clock(step=0.1, max_step=10)
    stamps = [100.0, 100.1, 3.0, 3.1, None, 90000.0, 90000.5]
    times = [clock.next(stamp) for stamp in stamps]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0])
    assert clock.num_mended == 3
    clock = Clock(step=40, max_step=1000)
    exchanged = [clock.next(stamp) for stamp in (0, 40, 160, 80, 120, 200, 240)]
    assert exchanged == [0, 40, 160, 160, 160, 200, 240]
    assert clock.num_mended == 2
    clock = Clock(step=0.04, max_step=10)
    assert [clock.next(None) for _ in range(3)] == pytest.approx([0, 0.04, 0.08])


def test_time_stamps_of_which_many_are_wrong_are_not_believed():
    good = list(range(0, 2000, 100))
    assert steady_times([*good, 1900, 1900], step=100, max_step=1000) is not None
    assert steady_times([*good, 1900, 1900, 1900], step=100, max_step=1000) is None


def test_one_absurd_step_leaves_a_variable_rate(tmp_path, timed_video, index_frames):
    times_ms = TIMES_MS + np.where(np.arange(len(TIMES_MS)) > 20, 10_000_000, 0)
    path = timed_video(tmp_path / "a.mkv", index_frames(len(TIMES_MS)), times_ms, codec="mpeg4")
    with open_video(path) as reader:
        assert reader.fps == pytest.approx(40, rel=0.01)
        assert reader.num_ticks == pytest.approx(TIMES_MS[-1] / 25 + 1, abs=1)
        frames = reader.ticks_to_frames(range(reader.num_ticks))
        assert frames[:30].tolist() == [on_screen(25 * tick) for tick in range(30)]
        assert set(range(len(TIMES_MS) - 1)) <= set(frames)


def test_the_header_tells_the_rate_where_no_time_is_known(tmp_path, make_video, index_frames):
    path = tmp_path / "a.h264"
    make_video(path, index_frames(40), fps=25)
    assert_frame_k_is_tick_k(str(path), num_frames=40, fps=25)
