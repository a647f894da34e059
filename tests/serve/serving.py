"""A served model for tests, and a client that sends forms as browsers do, or worse."""

import http.client
import json
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from hiera_video import Predictor
from hiera_video.config import load_config, to_yaml
from hiera_video.models.hiera import hiera_micro_8x64

NAMES = ["grows", "shrinks", "moves_left", "moves_right", "moves_up", "moves_down", "a_b", "<b>c"]
CLIPS = "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32"
VIDEO = "h264_index_first.mp4"
BOUNDARY = "----------------0123456789"


def save_checkpoint(path):
    """Save an untrained classifier as a run does, one that is sure of what it says."""
    torch.manual_seed(0)
    model = hiera_micro_8x64(input_size=(4, 32, 32), num_classes=8)
    with torch.no_grad():
        model.head.projection.weight.mul_(8)
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", CLIPS.split())
    content = {"model_state": model.state_dict(), "cfg": to_yaml(cfg), "class_names": NAMES}
    torch.save(content, path)
    return str(path)


@contextmanager
def serving(checkpoint, room, **settings):
    """Serve in a thread, with `room` as the system's temporary folder."""
    from hiera_video.serve.server import Service, Settings

    before, tempfile.tempdir = tempfile.tempdir, str(room)
    try:
        predictor = Predictor(checkpoint, device="cpu")
        with Service(predictor, Settings(port=0, **settings)) as service:
            thread = threading.Thread(target=service.run)
            thread.start()
            try:
                yield Client(service, Path(room))
            finally:
                service.stop()
                thread.join(30)
                assert not thread.is_alive()
        assert not list(Path(room).glob("hiera_video_serve_*"))
    finally:
        tempfile.tempdir = before


@contextmanager
def proxying(address, prefix):
    """Pass requests below `prefix` on to `address` without it, as the proxy of docs/serve.md."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            line = http.client.HTTPConnection(*address, timeout=60)
            headers = {**self.headers, "X-Forwarded-For": self.client_address[0]}
            line.request(self.command, "/" + self.path[len(prefix) :], body, headers)
            reply = line.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            line.close()

        do_POST = do_GET

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Reply:
    """A status, what the JSON says, and the headers."""

    status: int
    content: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)

    @property
    def error(self):
        return self.content["error"]


class Client:
    """Speaks to a service."""

    def __init__(self, service, room):
        self.service, self.room = service, room
        host, port = service.url.removeprefix("http://").rsplit(":", 1)
        self.address = host, int(port)

    def ask(self, method, path, body=None, headers=None, *, chunked=False):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=chunked)
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        is_json = reply.headers.get_content_type() == "application/json"
        content = json.loads(text) if is_json else {"text": text.decode()}
        return Reply(reply.status, content, dict(reply.headers.items()))

    def send(self, content, **more):
        """Upload a file's content."""
        return self.ask("POST", "/predict", form(content, **more), FORM)

    def files(self):
        """What lies in the temporary folder, beside the lock."""
        return sorted(
            str(path.relative_to(self.room))
            for path in self.room.rglob("*")
            if path.is_file() and path.name != "lock"
        )


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(content, *, name=b"video", file_name=b"x.mp4", kind=b""):
    """A part of a form; without a file name it is a text field."""
    said = b'Content-Disposition: form-data; name="' + name + b'"'
    said += b'; filename="' + file_name + b'"' if file_name is not None else b""
    said += b"\r\nContent-Type: " + kind if kind else b""
    return b"--" + BOUNDARY.encode() + b"\r\n" + said + b"\r\n\r\n" + content + b"\r\n"


def form(*contents, **more):
    """A whole form with a file in each part."""
    parts = [part(content, **more) for content in contents]
    return b"".join(parts) + b"--" + BOUNDARY.encode() + b"--\r\n"


def skip_without_extra():
    for package in ("starlette", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason="the extra 'serve' is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    skip_without_extra()
    return save_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint_epoch_00001.pyth")


@pytest.fixture(scope="module")
def client(checkpoint, tmp_path_factory):
    """A client of a service that takes at most 1 MB."""
    with serving(checkpoint, tmp_path_factory.mktemp("room"), max_upload_mb=1) as client:
        yield client
        assert client.files() == []


@pytest.fixture
def content(videos):
    return Path(videos[VIDEO]).read_bytes()


def wait_for(is_so, seconds=20):
    give_up_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
