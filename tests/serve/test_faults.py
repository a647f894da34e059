"""Files that hang, crash and fill the memory; clients that go; servers that are killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pytest

from hiera_video import Predictor
from hiera_video.serve.folder import UploadFolder
from hiera_video.serve.read import Refused, WindowReader, check_container
from hiera_video.serve.server import Service, Settings, check_settings
from hiera_video.utils.errors import UserError

from .serving import (
    FORM,
    checkpoint,
    content,
    form,
    save_checkpoint,
    serving,
    skip_without_extra,
    wait_for,
)

__all__ = ["checkpoint", "content"]  # fixtures

HANGS, CRASHES, BUG = b"hangs", b"crashes", b"a bug"


class FaultyReader(WindowReader):
    """Hangs or crashes at files that end in a word."""

    def __call__(self, path, job):
        if path:
            job.begin(0)
            end = Path(path).read_bytes()[-16:]
            while end.endswith(HANGS):
                time.sleep(1)
            if end.endswith(CRASHES):
                os.kill(os.getpid(), signal.SIGSEGV)
            if end.endswith(BUG):
                raise KeyError("nobody has thought of this")
        return super().__call__(path, job)


@pytest.fixture
def client(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("hiera_video.serve.answer.WindowReader", FaultyReader)
    with serving(checkpoint, tmp_path, deadline_sec=1.5) as client:
        yield client


def test_files_that_hang_or_crash_cost_their_process_alone(client, content, caplog):
    for fault, message in (
        (HANGS, "took longer than 1.5 s and was stopped"),
        (CRASHES, "makes the decoder crash"),
    ):
        reply = client.send(content + fault)
        assert (reply.status, message in reply.error) == (422, True)
        assert client.files() == []
        assert client.send(content).status == 200
    reply = client.send(content + BUG)
    assert (reply.status, "The server failed" in reply.error) == (500, True)
    assert client.files() == []
    assert client.send(content).status == 200


def test_a_client_that_goes_ends_the_work_for_it(checkpoint, tmp_path, monkeypatch, content):
    monkeypatch.setattr("hiera_video.serve.answer.WindowReader", FaultyReader)
    with serving(checkpoint, tmp_path, deadline_sec=1000) as client:
        body = form(content + HANGS)
        with socket.create_connection(client.address, timeout=30) as line:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body)
            wait_for(lambda: client.files() != [])
            time.sleep(0.3)
        wait_for(lambda: client.files() == [])
        assert client.send(content).status == 200


def test_a_server_that_ends_does_not_wait_for_a_file_that_hangs(
    checkpoint, tmp_path, monkeypatch, content
):
    monkeypatch.setattr("hiera_video.serve.answer.WindowReader", FaultyReader)
    with serving(checkpoint, tmp_path, deadline_sec=1000) as client:
        body = form(content + HANGS)
        line = socket.create_connection(client.address, timeout=30)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body)
        wait_for(lambda: client.files() != [])
        time.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert line.recv(12) == b"HTTP/1.1 503"
    line.close()


def test_pictures_that_are_too_large_or_a_band_are_refused(make_video, tmp_path, checkpoint):
    large = make_video(
        tmp_path / "large.avi",
        np.zeros((1, 6016, 6016, 3), np.uint8),
        codec="mjpeg",
        pix_fmt="yuvj420p",
    )
    refused = check_container(large)
    assert isinstance(refused, Refused)
    assert "at most 36 million pixels, got 6016 x 6016" in refused.reason
    band = make_video(tmp_path / "band.avi", np.zeros((2, 16, 1600, 3), np.uint8), codec="mpeg4")
    room = tmp_path / "room"
    room.mkdir()
    with serving(checkpoint, room) as client:
        reply = client.send(Path(band).read_bytes())
        assert (reply.status, reply.error) == (
            422,
            "The picture's longer side must be at most 50 times the shorter one, got 1600 x 16 "
            "pixels.",
        )


def test_a_list_of_other_files_is_not_opened(videos, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(Path(videos["h264_b.mp4"]).read_bytes())
    upload = tmp_path / "upload"
    upload.write_bytes(b"ffconcat version 1.0\nfile secret.mp4\n#\x01\x02\xff\n")
    with av.open(str(upload)) as container:  # FFmpeg does
        assert container.streams.video
    assert isinstance(check_container(str(upload)), Refused)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_process_that_takes_too_much_memory_is_refused_it():
    code = (
        "import numpy as np\n"
        "from hiera_video.serve.read import limit_memory\n"
        "limit_memory(100 << 20)\n"
        "limit_memory(100 << 30)\n"
        "np.ones(50 << 20, np.uint8)\n"
        "np.ones(200 << 20, np.uint8)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "line 6" in run.stderr
    assert "MemoryError" in run.stderr


# --- The command


@pytest.fixture
def start(tmp_path):
    """Start tools/serve.py in a temporary folder of its own; return process, URL and folder."""
    skip_without_extra()
    room = tmp_path / "room"
    room.mkdir()
    path = save_checkpoint(tmp_path / "x.pyth")
    processes = []

    def make(*words):
        process = subprocess.Popen(
            [sys.executable, "tools/serve.py", "--checkpoint", path, "--device", "cpu", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(room)},
        )
        processes.append(process)
        line = process.stdout.readline()
        found = re.match(r"http://\S+?:(\d+)", line)
        return process, found and int(found[1]), room

    yield make
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "number", "warning"),
    [
        ("--port 0", signal.SIGINT, ""),
        (
            "--port 0 --host 0.0.0.0 --grace-sec 0.5",
            signal.SIGTERM,
            "warning: --host 0.0.0.0 lets everyone who reaches this machine upload videos; there "
            "is no password and no encryption.\n",
        ),
    ],
)
def test_a_signal_ends_it_cleanly(start, content, words, number, warning):
    process, port, room = start(*words.split())
    (folder,) = room.glob("hiera_video_serve_*")
    assert folder.stat().st_mode & 0o077 == 0
    body = form(content)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body[:-9])
        wait_for(lambda: len(list(folder.iterdir())) == 2)  # in the middle of an upload
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "stopped\n")
    log = r'127\.0\.0\.1 - - \[.*\] "POST /predict HTTP/1\.1" 503 \d+ \d+\.\d{3}\n'
    assert re.fullmatch(re.escape(warning) + log, err), err
    assert list(room.iterdir()) == []


def test_sigterm_lets_a_running_request_finish_and_takes_no_other(start, content):
    process, port, room = start("--port", "0", "--no-access-log")
    (folder,) = room.glob("hiera_video_serve_*")
    body = form(content)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body[:-9])
        wait_for(lambda: len(list(folder.iterdir())) == 2)
        process.send_signal(signal.SIGTERM)

        def is_closed():
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except OSError:
                return True
            return False

        wait_for(is_closed)
        assert process.poll() is None
        line.sendall(body[-9:])
        reply = b""
        while piece := line.recv(65536):
            reply += piece
    head, answer = reply.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(answer)["predictions"]
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "")
    assert list(room.iterdir()) == []


def test_a_second_sigterm_ends_it_at_once(checkpoint, tmp_path, monkeypatch, content):
    monkeypatch.setattr("hiera_video.serve.answer.WindowReader", FaultyReader)
    with serving(checkpoint, tmp_path, deadline_sec=1000, grace_sec=1000) as client:
        body = form(content + HANGS)
        line = socket.create_connection(client.address, timeout=30)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body)
        wait_for(lambda: client.files() != [])
        client.service._on_signal(signal.SIGTERM, None)
        line.settimeout(0.7)
        with pytest.raises(TimeoutError):  # it has its time
            line.recv(1)
        client.service._on_signal(signal.SIGTERM, None)
        wait_for(lambda: client.files() == [])
        line.close()


def test_an_upload_that_drips_keeps_no_place(checkpoint, tmp_path, monkeypatch, content):
    monkeypatch.setattr("hiera_video.serve.upload._IDLE_SEC", 1.0)
    body = form(content)
    with serving(checkpoint, tmp_path, max_waiting=0) as client:
        with socket.create_connection(client.address, timeout=30) as line:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode())
            for place in range(200):
                line.sendall(body[place : place + 1])
                line.settimeout(0.05)
                try:
                    reply = line.recv(1000)
                    break
                except TimeoutError:
                    pass
        assert reply.startswith(b"HTTP/1.1 408")
        assert client.send(content).status == 200


def test_what_a_killed_server_left_is_removed_and_nothing_else(start, content):
    first, port, room = start("--port", "0")
    (left,) = room.glob("hiera_video_serve_*")
    body = form(content)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body[:-9])
        wait_for(lambda: len(list(left.iterdir())) == 2)
        first.kill()
        first.wait()
    assert len(list(left.iterdir())) == 2
    (room / "hiera_video_serve_file").write_text("a file of somebody")
    (room / "hiera_video_serve_new").mkdir()  # of a server that is just starting
    (room / "else").mkdir()
    (room / "hiera_video_serve_link").symlink_to(room / "else")
    before, tempfile.tempdir = tempfile.tempdir, str(room)
    try:
        with UploadFolder() as mine, UploadFolder() as other:
            names = {path.name for path in room.glob("hiera_video_serve_*")}
            assert names == {
                "hiera_video_serve_file",
                "hiera_video_serve_new",
                "hiera_video_serve_link",
                Path(mine.path).name,
                Path(other.path).name,
            }
    finally:
        tempfile.tempdir = before


def test_an_address_that_cannot_be_listened_at_is_refused(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    predictor = Predictor(checkpoint, device="cpu")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for settings, message in (
            ({"port": port}, f"--port must be free, got {port}"),
            ({"host": "203.0.113.7"}, "must be where this process may listen, got 203.0.113.7"),
            ({"host": "no such name"}, "--host must be an address or a name of this machine"),
        ):
            with pytest.raises(UserError, match=message):
                Service(predictor, Settings(**settings))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="TMPDIR must be a folder that can be written to"):
        Service(predictor, Settings(port=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, "--port must be 0 to 65535, got 70000"),
        ({"max_upload_mb": float("nan")}, "--max-upload-mb must be above 0, got nan"),
        ({"deadline_sec": -1.0}, "--decode-timeout-sec must be above 0, got -1"),
        ({"max_windows": 0}, "--max-windows must be at least 1, got 0"),
        ({"grace_sec": -1.0}, "--grace-sec must be at least 0, got -1"),
        ({"max_waiting": -1}, "--max-waiting must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        check_settings(Settings(**settings))


def test_a_package_that_is_missing_is_told(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"needs starlette, uvicorn .*'.\[serve\]'"):
        Service(Predictor(checkpoint, device="cpu"), Settings(port=0))
    with pytest.raises(UserError, match=r"needs starlette, uvicorn"):
        check_settings(Settings())  # before a model is read
