import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hiera_video.utils import cache, fetch, io

CONTENT = bytes(range(256)) * 2000


class Answers(BaseHTTPRequestHandler):
    """Answers by the path asked for: whole, cut short in three ways, or not at all."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.endswith("silent"):
            self.server.stop.wait(20)
            return
        if self.path.endswith("gone"):
            self.send_error(404)
            return
        if self.path.endswith("chunks"):
            self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        if self.path.endswith("chunks"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT) + CONTENT[:1000])
            self.close_connection = True
            return
        broken = self.path.endswith("cut") and self.server.broken
        if not self.path.endswith("empty"):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if not self.path.endswith("empty"):
            self.wfile.write(CONTENT[:300_000] if broken else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        server.asked, server.broken, server.stop = [], True, threading.Event()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.stop.set()
        server.shutdown()


def kept():
    """What is in the cache, but for lock files."""
    return [n for n in os.listdir(os.environ["FVCORE_CACHE"]) if not n.endswith(".lock")]


def test_a_download_is_kept_and_asked_for_once(server):
    for _ in range(2):
        path = io.local_path(f"{server.url}/folder/file.pth?version=2")
    assert io.open_file(path, "rb").read() == CONTENT
    assert path.endswith("file.pth")
    assert path == cache.cached_path(f"{server.url}/folder/file.pth?version=2")
    assert len(server.asked) == 1


def test_a_forgotten_download_is_fetched_again(server):
    url = f"{server.url}/file"
    io.local_path(url)
    io.forget_download(url)
    io.forget_download(url)
    io.local_path(url)
    assert len(server.asked) == 2


def test_files_of_one_path_on_two_hosts_are_not_mixed_up(server):
    port = server.server_address[1]
    paths = {io.local_path(f"http://{host}:{port}/a") for host in ("127.0.0.1", "localhost")}
    assert len(paths) == len(server.asked) == 2


@pytest.mark.parametrize("how", ["cut", "chunks", "empty"])
def test_a_download_that_breaks_off_leaves_nothing(server, how):
    with pytest.raises(OSError, match="broke off"):
        io.local_path(f"{server.url}/{how}")
    assert kept() == []


def test_a_download_that_broke_off_is_whole_the_next_time(server):
    url = f"{server.url}/cut"
    with pytest.raises(OSError, match="after 300000 of 512000 bytes"):
        io.local_path(url)
    server.broken = False
    assert io.open_file(io.local_path(url), "rb").read() == CONTENT


def test_what_is_not_there_is_told_and_not_kept(server):
    with pytest.raises(OSError, match="404"):
        io.local_path(f"{server.url}/gone")
    assert kept() == []


def test_a_silent_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(fetch, "STALL_SEC", 0.2)
    started = time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        io.local_path(f"{server.url}/silent")
    assert time.monotonic() - started < 5


def test_a_download_that_two_want_at_once_is_made_once(server):
    url = f"{server.url}/both"
    threads = [threading.Thread(target=io.local_path, args=(url,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
