import os
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hiera_video import ClassScore, Prediction, Predictor
from hiera_video.config import to_yaml
from hiera_video.inference.stream import StreamFrame, stream_frames
from hiera_video.inference.windows import Window, file_windows, make_grid, stream_windows
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.utils.errors import UserError
from hiera_video.visualize.overlay import draw_labels, write_overlay

TS = {"options": {"g": "6", "bf": "0"}}


@pytest.fixture
def predictor(small_cfg, tmp_path):
    """Return an untrained classifier of clips of 4 frames, 2 apart at 30 a second."""

    def make(*overrides):
        torch.manual_seed(0)
        model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
        content = {"model_state": model.state_dict(), "cfg": to_yaml(small_cfg(*overrides))}
        torch.save(content, tmp_path / "checkpoint.pyth")
        return Predictor(tmp_path / "checkpoint.pyth")

    return make


def spans(windows):
    return [(round(one.start_sec * 30), round(one.end_sec * 30)) for one in windows]


def scores(windows):
    return np.stack([one.prediction.scores for one in windows])


def test_windows_slide_along_a_file(predictor, videos):
    found = list(file_windows(predictor(), videos["h264_b.mp4"], make_grid(predictor().cfg)))
    # 40 frames; a clip is 4 frames 2 apart, and the next begins half a clip later.
    assert spans(found) == [(start, start + 8) for start in range(0, 33, 4)]
    assert len(np.unique(scores(found), axis=0)) == len(found)


def test_a_window_scores_as_its_frames_do(predictor, videos, index_frames):
    one_view = predictor(
        "TEST.NUM_TEMPORAL_CLIPS 1 TEST.NUM_SPATIAL_CROPS 1 TEST.VIEWS_TABLE False"
    )
    grid = make_grid(one_view.cfg, every_sec=0.4)
    found = list(file_windows(one_view, videos["lossless.mkv"], grid))
    frames_THWC = index_frames(40)
    assert spans(found) == [(0, 8), (12, 20), (24, 32)]
    for window, start in zip(found, (0, 12, 24), strict=True):
        alone = one_view(frames_THWC[start : start + 7], fps=30)
        assert np.allclose(window.prediction.scores, alone.scores, atol=1e-6)


def test_a_stream_has_the_windows_of_the_file(predictor, videos):
    one = predictor()
    grid = make_grid(one.cfg)
    of_file = list(file_windows(one, videos["lossless.mkv"], grid))
    frames = stream_frames(videos["lossless.mkv"], fallback_fps=30, wait_sec=0.1)
    of_stream = list(stream_windows(one, frames, grid))
    assert spans(of_stream) == spans(of_file)
    assert np.allclose(scores(of_stream), scores(of_file), atol=1e-6)


@pytest.mark.parametrize("num_frames", [1, 5])
def test_what_is_shorter_than_a_window_has_one(
    predictor, make_video, index_frames, tmp_path, num_frames
):
    path = make_video(
        tmp_path / "short.mkv", index_frames(num_frames), codec="ffv1", pix_fmt="bgr0"
    )
    one = predictor()
    grid = make_grid(one.cfg)
    of_file = list(file_windows(one, path, grid))
    of_stream = list(stream_windows(one, stream_frames(path, fallback_fps=30, wait_sec=0), grid))
    assert len(of_file) == len(of_stream) == 1
    assert np.allclose(scores(of_file), scores(of_stream), atol=1e-6)
    assert of_file[0].end_sec == pytest.approx(num_frames / 30)


def test_uniform_clips_become_windows_of_a_given_length(predictor, videos):
    one = predictor("DATA.SAMPLING uniform")
    assert make_grid(one.cfg).window_sec == 4
    grid = make_grid(one.cfg, window_sec=0.8, every_sec=0.4)
    assert spans(file_windows(one, videos["h264_b.mp4"], grid)) == [(0, 24), (12, 36)]
    with pytest.raises(UserError, match=r"clip of 0\.266667 s"):
        make_grid(predictor().cfg, window_sec=1)
    with pytest.raises(UserError, match="every_sec must be above 0 seconds, got 0"):
        make_grid(one.cfg, every_sec=0)


def test_late_frames_end_no_window(predictor, index_frames):
    one = predictor()
    frames = [
        StreamFrame(number / 30, partial(index_frames(30).__getitem__, number), 9 <= number <= 18)
        for number in range(30)
    ]
    found = list(stream_windows(one, frames, make_grid(one.cfg)))
    # Windows that end with frame 10, 14 and 18 are passed over.
    assert spans(found) == [(0, 8), (16, 24), (20, 28)]


def write_slowly(path, content, done):
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(content), 4000):
            file.write(content[start : start + 4000])
            time.sleep(0.01)
    done.append(path)


def test_a_file_is_followed_while_it_grows(videos, tmp_path):
    content = Path(videos["h264_b.ts"]).read_bytes()
    path, done = tmp_path / "growing.ts", []
    path.touch()
    writer = threading.Thread(target=write_slowly, args=(path, content, done))
    writer.start()
    frames = stream_frames(str(path), fallback_fps=30, wait_sec=0.5)
    times = [frame.time_sec for frame in frames]
    writer.join()
    assert len(times) == 40
    assert np.allclose(np.diff(times), 1 / 30, atol=1e-3)


def test_a_pipe_and_a_finished_mp4_are_read(videos, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = Path(videos["h264_b.mkv"]).read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert len(list(stream_frames(str(pipe), fallback_fps=30))) == 40
    writer.join()
    assert len(list(stream_frames(videos["h264_b.mp4"], fallback_fps=30))) == 40


def test_a_stream_in_which_another_comes_to_light_goes_on(videos, tmp_path):
    """One packet of an MPEG-TS says that it is of a stream that nobody has announced."""
    data = bytearray(Path(videos["h264_b.ts"]).read_bytes())
    starts = [at for at in range(0, len(data), 188) if data[at + 1 : at + 3] == b"\x41\x00"]
    data[starts[len(starts) // 2] + 1] = 0xFF
    path = tmp_path / "stray.ts"
    path.write_bytes(data)
    assert len(list(stream_frames(str(path), fallback_fps=30, wait_sec=0))) >= 36


def test_a_stream_comes_by_http(videos):
    folder = str(Path(videos["h264_b.ts"]).parent)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        assert len(list(stream_frames(f"{url}h264_b.ts", fallback_fps=30))) == 40
        with pytest.raises(UserError, match=r"nothing.ts' cannot be opened as a video \(.*404"):
            next(stream_frames(f"{url}nothing.ts", fallback_fps=30))
    finally:
        server.shutdown()
        server.server_close()


def test_a_damaged_stream_gives_what_can_be_decoded(bad_videos, videos, tmp_path):
    content = bytearray(Path(videos["h264_b.ts"]).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    path = tmp_path / "damaged.ts"
    path.write_bytes(content[:-1500])
    found = list(stream_frames(str(path), fallback_fps=30, wait_sec=0))
    assert 20 < len(found) <= 40
    times = [frame.time_sec for frame in found]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/dev/video77", "no such device as '/dev/video77'"),
        ("77", "no such device as '/dev/video77'"),
        ("/dev/null", "'/dev/null' cannot be opened as a video"),
        ("nothing.ts", "no such file"),
        ("http://127.0.0.1:9/x.ts", "cannot be opened as a video"),
    ],
)
def test_a_source_that_is_none_is_refused(source, message):
    with pytest.raises(UserError, match=message):
        list(stream_frames(source, fallback_fps=30, wait_sec=0))


@pytest.mark.parametrize("name", ["noise.mp4", "sound.wav", "empty.mp4", "directory.mp4"])
def test_a_file_that_is_no_video_is_refused(bad_videos, name):
    with pytest.raises(UserError, match=name):
        list(stream_frames(bad_videos[name], fallback_fps=30, wait_sec=0))


def window(start_sec, end_sec, best):
    scores = np.full(3, 0.1, np.float32)
    scores[best] = 0.8
    return Window(start_sec, end_sec, Prediction("", scores, ("one", "two", "three")))


def test_the_overlay_shows_what_the_nearest_window_says(videos, decode_all, tmp_path):
    out = str(tmp_path / "out.mp4")
    windows = [window(0, 0.6, 0), window(0.7, 1.3, 1)]
    write_overlay(videos["h264_b.mp4"], out, windows, backend="auto", top_k=2, fallback_fps=30)
    frames = decode_all(out)
    assert len(frames) == 40
    assert frames[0].shape == (384, 512, 3)  # 48 x 64, enlarged eight times
    with av.open(out) as container:
        assert container.streams.video[0].average_rate == 30
    # Changes in the panel between neighbours that are none in the names' pixels but one: half way.
    panels = np.stack([frame[300:370, 20:110].astype(int) for frame in frames])
    jumps = np.abs(np.diff(panels, axis=0)).max(axis=(1, 2, 3))
    assert jumps.argmax() == 19
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_labels_are_drawn_within_the_picture():
    picture_HWC = np.full((360, 640, 3), 255, np.uint8)
    rows = [ClassScore(0, "a name that is much longer than the picture " * 5, 1.0)]
    rows += [ClassScore(1, "kurz ≥ идёт", 0.0)]
    drawn_HWC = draw_labels(picture_HWC, rows)
    assert drawn_HWC.shape == picture_HWC.shape
    changed = (drawn_HWC != 255).any(-1)
    assert not changed[:200].any()
    assert not changed[:, -3:].any()
    assert changed[250:].mean() > 0.4
    assert (picture_HWC == 255).all()
    # Letters stand out from the panel.
    assert drawn_HWC[300:350, 20:600].max() > 240
    assert np.median(drawn_HWC[320:340, 20:600]) < 90


@pytest.mark.parametrize(
    ("name", "shown"), [("\U000f0000", "class 7"), ("a\nb", r"a\nb"), ("\udcff", r"\udcff")]
)
def test_a_name_that_no_font_can_write_is_its_number(name, shown):
    picture_HWC = np.zeros((360, 640, 3), np.uint8)
    drawn_HWC = draw_labels(picture_HWC, [ClassScore(7, name, 0.5)])
    assert (drawn_HWC == draw_labels(picture_HWC, [ClassScore(7, shown, 0.5)])).all()


@pytest.mark.parametrize(("height", "width"), [(20, 480), (2000, 60)])
def test_labels_need_no_room(height, width):
    drawn_HWC = draw_labels(np.zeros((height, width, 3), np.uint8), [ClassScore(0, "name", 0.5)])
    assert drawn_HWC.shape == (height, width, 3)


def test_odd_turned_videos_are_written(videos, tmp_path, decode_all):
    for name in ("odd_size.avi", "h264_turned.mp4", "one_frame.mp4"):
        out = str(tmp_path / f"{name}.mp4")
        write_overlay(
            videos[name], out, [window(0, 1, 0)], backend="auto", top_k=1, fallback_fps=30
        )
        shape = decode_all(out)[0].shape
        assert shape[0] % 2 == shape[1] % 2 == 0
        assert shape[1] >= 480


def test_an_overlay_that_cannot_be_written_is_refused(videos, tmp_path):
    path = videos["h264_b.mp4"]
    for out, message in (
        (path, "must be another file than the video"),
        (str(tmp_path / "nowhere" / "out.mp4"), "could not be written"),
    ):
        with pytest.raises(UserError, match=message):
            write_overlay(path, out, [window(0, 1, 0)], backend="auto", top_k=1, fallback_fps=30)


@pytest.mark.parametrize("source", ["http://[::1", "rtsp://[x"])
def test_a_broken_url_is_refused(source):
    with pytest.raises(UserError, match="cannot be opened as a video"):
        list(stream_frames(source, fallback_fps=30))


def test_a_playlist_is_no_stream_of_files(videos, tmp_path):
    path = tmp_path / "list.mp4"
    path.write_text(f"ffconcat version 1.0\nfile {videos['h264_b.mp4']}\n")
    for source in (str(path), f"file://{path}"):
        with pytest.raises(UserError, match="not a readable video"):
            list(stream_frames(source, fallback_fps=30, wait_sec=0))
    good = f"file://{videos['h264_b.ts']}"
    assert len(list(stream_frames(good, fallback_fps=30, wait_sec=0))) == 40
