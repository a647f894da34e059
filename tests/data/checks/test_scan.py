import os
import signal
import subprocess
import sys
import textwrap
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.checks import scan as scan_module
from hiera_video.data.checks.journal import Journal
from hiera_video.data.checks.scan import ScanSettings, check_video, scan
from hiera_video.data.decoders import open_video
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.workers.process import Job

CLIPS = ScanSettings(backend="pyav", full=False, clip=ClipSpec(4, 2, 30.0))
FULL = ScanSettings(backend="pyav", full=True, clip=ClipSpec(4, 2, 30.0, "uniform"))

# A decoder that misbehaves for files of these names. Worker processes import it, so it is a file.
ODD_DECODER = """
import os, signal, time
from hiera_video.data.decoders import open_video as open_real

def open_video(path, backend):
    name = os.path.basename(path)
    with open(os.path.join(os.path.dirname(__file__), "opened.txt"), "a") as log:
        log.write(path + "\\n")
    if name.startswith("hangs"):
        while True:
            time.sleep(60)
    if name.startswith("crashes"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("slow"):
        time.sleep(0.3)
    return open_real(path, backend=backend)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_video, index_frames):
    """Good videos and every kind of bad one, by name."""
    folder = tmp_path_factory.mktemp("to scan, é")
    frames_THWC = index_frames(30)
    good = folder / "good.mp4"
    make_video(good, frames_THWC, container_options={"movflags": "faststart"})
    make_video(folder / "one_frame.mp4", frames_THWC[:1])
    make_video(folder / "seven_frames.mp4", frames_THWC[:7])
    make_video(folder / "six_frames.mp4", frames_THWC[:6])
    make_video(folder / "vp9.webm", frames_THWC[:8], codec="libvpx-vp9", options={"cpu-used": "8"})
    whole = good.read_bytes()
    noise = np.random.default_rng(0).integers(256, size=4000, dtype=np.uint8).tobytes()
    start = len(whole) // 3
    contents = {
        "empty.mp4": b"",
        "noise.mp4": noise,
        "no_moov.mp4": (folder / "six_frames.mp4").read_bytes()[:-1500],
        "cut_off.mp4": whole[: len(whole) // 2],
        "text.mp4": b"<html>404 not found</html>",
        "unknown_codec.mp4": whole.replace(b"avc1", b"zzzz"),
        "noise_in_the_middle.mp4": whole[:start] + noise + whole[start + len(noise) :],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    (folder / "directory.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.fixture
def odd_decoder(tmp_path, monkeypatch):
    """Scan with ODD_DECODER; return the function that lists the paths it was asked to open."""
    (tmp_path / "odd_decoder.py").write_text(ODD_DECODER)
    monkeypatch.syspath_prepend(tmp_path)
    import odd_decoder

    monkeypatch.setattr(scan_module, "open_video", odd_decoder.open_video)
    log = tmp_path / "opened.txt"
    yield lambda: log.read_text().splitlines() if log.exists() else []
    del sys.modules["odd_decoder"]


def check(path, settings=CLIPS):
    return check_video(str(path), Job(), settings=settings)


def copies(folder, tmp_path, names):
    """Links to the good video under other names."""
    for name in names:
        os.link(folder / "good.mp4", tmp_path / name)
    return [str(tmp_path / name) for name in names]


def run(paths, file, *, settings=CLIPS, num_workers=2, time_limit_sec=30.0):
    with Journal(str(file), settings.as_dict()) as journal:
        return scan(
            paths,
            settings=settings,
            journal=journal,
            num_workers=num_workers,
            time_limit_sec=time_limit_sec,
        )


@pytest.mark.parametrize("settings", [CLIPS, FULL], ids=["clips", "full"])
@pytest.mark.parametrize(
    ("name", "num_frames", "length_sec", "codec", "is_short"),
    [
        ("good.mp4", 30, 1.0, "h264", False),
        ("seven_frames.mp4", 7, 7 / 30, "h264", False),
        ("six_frames.mp4", 6, 0.2, "h264", True),
        ("vp9.webm", 8, 8 / 30, "vp9", False),
    ],
)
def test_good_videos(folder, settings, name, num_frames, length_sec, codec, is_short) -> None:
    verdict = check(folder / name, settings)
    assert verdict.reason == ""
    facts = verdict.facts
    assert (facts.num_frames, facts.width, facts.height) == (num_frames, 64, 48)
    assert facts.length_sec == pytest.approx(length_sec, abs=0.01)
    assert facts.codec == codec
    # Uniformly sampled, a clip takes 4 frames; densely, 7 of the video's.
    assert facts.is_short is (is_short and settings is CLIPS)


@pytest.mark.parametrize("settings", [CLIPS, FULL], ids=["clips", "full"])
def test_one_frame_is_a_short_video(folder, settings) -> None:
    facts = check(folder / "one_frame.mp4", settings).facts
    assert (facts.num_frames, facts.is_short) == (1, True)


@pytest.mark.parametrize("settings", [CLIPS, FULL], ids=["clips", "full"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", "is empty"),
        ("noise.mp4", "not a readable video"),
        ("no_moov.mp4", "not a readable video"),
        ("text.mp4", "not a readable video"),
        ("cut_off.mp4", "frames can be decoded"),
        ("unknown_codec.mp4", "codec"),
        ("noise_in_the_middle.mp4", "frames can be decoded"),
        ("sound.wav", "no video stream"),
        ("directory.mp4", "is a directory"),
        ("pipe.mp4", "is "),
        ("missing.mp4", "no such file"),
    ],
)
def test_bad_videos_are_told_by_their_reason(folder, settings, name, reason) -> None:
    verdict = check(folder / name, settings)
    assert verdict.facts is None
    assert reason in verdict.reason
    assert str(folder) not in verdict.reason  # the path stands beside it


def test_only_a_full_scan_finds_damage_between_the_clips(
    tmp_path, make_video, index_frames
) -> None:
    """Every frame stands alone here, so that the damage of one does not reach the others."""
    path = make_video(tmp_path / "a.avi", index_frames(40), codec="mjpeg", pix_fmt="yuvj420p")
    data = Path(path).read_bytes()
    starts = [i for i in range(len(data)) if data.startswith(b"\xff\xd8\xff", i)]
    assert len(starts) == 40
    damaged = data[: starts[9]] + bytes(starts[10] - starts[9] - 8) + data[starts[10] - 8 :]
    (tmp_path / "a.avi").write_bytes(damaged)
    assert check(path).reason == ""
    assert "frames can be decoded" in check(path, FULL).reason


def test_a_full_scan_decodes_every_frame_in_chunks(folder, monkeypatch) -> None:
    asked = []

    def opener(path, backend):
        reader = open_video(path, backend)
        read = reader.frames_at
        reader.frames_at = lambda indices: (asked.append(list(indices)), read(indices))[1]
        return reader

    monkeypatch.setattr(scan_module, "_CHUNK_BYTES", 7 * 64 * 48 * 3)
    check_video(str(folder / "good.mp4"), Job(), settings=FULL, opener=opener)
    chunks = asked[3:]  # after the three clips
    assert [index for chunk in chunks for index in chunk] == list(range(30))
    assert max(map(len, chunks)) == 7


def test_a_bug_in_a_decoder_costs_its_file_alone(folder) -> None:
    def opener(path, backend):
        raise IndexError("list index out of range\nmore")

    verdict = check_video(str(folder / "good.mp4"), Job(), settings=CLIPS, opener=opener)
    assert verdict.reason == "stopped its decoder with IndexError: list index out of range"


def test_hung_and_crashed_decoders_cost_their_file_alone(folder, tmp_path, odd_decoder) -> None:
    names = ["hangs.mp4", "a.mp4", "crashes.mp4", "b.mp4", "hangs too.mp4", "c.mp4", "slow.mp4"]
    paths = copies(folder, tmp_path, names)
    journal = tmp_path / "journal.jsonl"
    start = time.monotonic()
    verdicts = run([*paths, str(folder / "empty.mp4")], journal, time_limit_sec=2.0)
    assert time.monotonic() - start < 30
    reasons = {os.path.basename(path): verdict.reason for path, verdict in verdicts.items()}
    good = [name for name, reason in reasons.items() if not reason]
    assert sorted(good) == ["a.mp4", "b.mp4", "c.mp4", "slow.mp4"]
    assert "empty" in reasons["empty.mp4"]
    lost = {n: verdicts[p].lost_after_sec for n, p in zip(names, paths, strict=True)}
    assert [n for n in names if lost[n] is not None] == names[:1] + names[2:3] + names[4:5]
    # Each was opened once: nothing is lost or repeated by the death of a process.
    assert sorted(odd_decoder()) == sorted([*paths, str(folder / "empty.mp4")])
    # And none is opened a second time by the same scan.
    assert run([*paths, str(folder / "empty.mp4")], journal, time_limit_sec=2.0) == verdicts
    assert len(odd_decoder()) == 8


def test_a_scan_that_is_killed_goes_on(folder, tmp_path, odd_decoder) -> None:
    names = [f"slow {i}.mp4" for i in range(12)]
    paths = copies(folder, tmp_path, names)
    journal = tmp_path / "journal.jsonl"
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path[:0] = [{str(tmp_path)!r}]
            import odd_decoder
            from hiera_video.data.checks import scan as scan_module
            from hiera_video.data.checks.journal import Journal
            from hiera_video.data.sampling import ClipSpec
            if __name__ == "__main__":
                scan_module.open_video = odd_decoder.open_video
                settings = scan_module.{CLIPS!r}
                with Journal({str(journal)!r}, settings.as_dict()) as journal:
                    scan_module.scan({paths!r}, settings=settings, journal=journal,
                                     num_workers=1, time_limit_sec=30.0)
            """
        )
    )
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while not journal.exists() or len(journal.read_text().splitlines()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = len(journal.read_text().splitlines())
    assert known < 12
    time.sleep(0.5)  # a worker may still be at its video
    before = len(odd_decoder())
    verdicts = run(paths, journal)
    assert [verdicts[path].reason for path in paths] == [""] * 12
    assert len(odd_decoder()) - before <= 12 - known
    time.sleep(0.5)
    assert len(odd_decoder()) - before == 12 - known


def test_what_is_known_needs_no_process(tmp_path, folder) -> None:
    paths = [str(folder / "empty.mp4")]
    verdicts = run(paths, tmp_path / "journal.jsonl")
    seen = []
    with Journal(str(tmp_path / "journal.jsonl"), CLIPS.as_dict()) as journal:
        again = scan(
            paths,
            settings=CLIPS,
            journal=journal,
            num_workers=0,
            time_limit_sec=30.0,
            progress=seen.append,
        )
    assert again == verdicts
    assert seen == list(verdicts.values())
