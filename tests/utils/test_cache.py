"""The cache of URLs, with a real server on the loopback: current, complete, bounded, not secret."""

import gc
import gzip
import logging
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.utils import cache, fetch, io
from hiera_video.utils.errors import UserError

CONTENT = bytes(range(256)) * 100


class Answers(BaseHTTPRequestHandler):
    """Answers with `server.content`, as `server.how` says; keeps what it was asked."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, dict(self.headers)))
        how = server.how
        if how == "drip headers":
            self.drip(b"HTTP/1.1 200 OK\r\nX-Long: ")
            return
        version = {"ETag": f'"{hash(server.content)}"'} if server.has_version else {}
        if how == "down":
            self.send_error(503)
            return
        if version and self.headers.get("If-None-Match") == version["ETag"]:
            self.send_response(304)
            self.end_headers()
            return
        status = {"part": 206, "empty": 204, "gone": 404}.get(how, 200)
        body = gzip.compress(server.content) if how == "gzip" else server.content
        length = {"no length": None, "cut": None, "bad length": "abc", "negative": "-5"}
        self.send_response(status)
        for name, value in version.items():
            self.send_header(name, value)
        if how == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if (stated := length.get(how, str(len(body)))) is not None:
            self.send_header("Content-Length", stated)
        self.end_headers()
        if how == "drip":
            self.drip(body)
            return
        self.wfile.write(body[: len(body) // 2] if how == "cut" else body)

    def drip(self, content):
        for place in range(len(content)):
            if self.server.stop.wait(0.05):
                return
            try:
                self.wfile.write(content[place : place + 1])
                self.wfile.flush()
            except OSError:
                return
        while not self.server.stop.wait(0.05):  # headers that never end
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        server.asked, server.how, server.content, server.has_version = [], "", CONTENT, True
        server.stop = threading.Event()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.stop.set()
        server.shutdown()


@pytest.fixture
def another_process():
    """Forget what this process has checked, as a new one has."""
    return lambda: cache._memory.cache_clear()


def read(url):
    with open(io.local_path(url), "rb") as file:
        return file.read()


def test_a_file_that_was_replaced_is_fetched_again(server, another_process):
    url = f"{server.url}/a.bin"
    assert read(url) == CONTENT
    server.content = b"new"
    another_process()
    assert read(url) == b"new"
    assert len(server.asked) == 2


def test_a_file_that_has_not_changed_is_asked_for_and_not_sent(server, another_process):
    url = f"{server.url}/a.bin"
    for _ in range(3):
        assert read(url) == CONTENT
        another_process()
    assert [("If-None-Match" in headers) for _, headers in server.asked] == [False, True, True]


def test_a_process_asks_once_in_a_while(server, monkeypatch):
    url = f"{server.url}/a.bin"
    for _ in range(3):
        read(url)
    assert len(server.asked) == 1
    monkeypatch.setattr(cache, "FRESH_SEC", 0.0)
    server.content = b"new"
    assert read(url) == b"new"


def test_the_time_of_change_serves_where_there_is_no_tag(tmp_path, monkeypatch, another_process):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    statuses = []

    class Files(SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            statuses.append(int(code))

    site = tmp_path / "site"
    site.mkdir()
    (site / "a.bin").write_bytes(CONTENT)
    os.utime(site / "a.bin", (1_000_000_000, 1_000_000_000))
    handler = partial(Files, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_address[1]}/a.bin"
        for content in (CONTENT, CONTENT, b"new"):
            (site / "a.bin").write_bytes(content)
            seconds = 1_000_000_000 + 9 * (content == b"new")
            os.utime(site / "a.bin", (seconds, seconds))
            assert read(url) == content
            another_process()
        httpd.shutdown()
    assert statuses == [200, 304, 200]


def test_a_copy_without_a_version_is_fetched_by_every_process(server, another_process, monkeypatch):
    server.has_version = False
    url = f"{server.url}/a.bin"
    read(url)
    another_process()
    read(url)  # one that started with the first
    assert len(server.asked) == 1
    monkeypatch.setattr(cache, "_TOGETHER_SEC", 0.0)
    another_process()
    server.content = b"new"
    assert read(url) == b"new"


def test_a_body_that_may_have_been_cut_is_not_asked_after_but_fetched(
    server, another_process, monkeypatch
):
    monkeypatch.setattr(cache, "_TOGETHER_SEC", 0.0)
    url = f"{server.url}/a.bin"
    server.how = "cut"
    assert read(url) == CONTENT[: len(CONTENT) // 2]  # nobody can tell
    another_process()
    server.how = ""
    assert read(url) == CONTENT


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("part", "status 206, not 200"),
        ("empty", "status 204, not 200"),
        ("gzip", "encoded \\(gzip\\)"),
        ("bad length", "Content-Length must be a number, got 'abc'"),
        ("negative", "Content-Length must be a number, got '-5'"),
    ],
)
def test_what_is_not_the_whole_file_as_it_is_is_not_kept(server, how, message):
    server.how = how
    url = f"{server.url}/a.bin"
    with pytest.raises(OSError, match=message):
        io.local_path(url)
    assert not os.path.exists(cache.cached_path(url))
    server.how = ""
    assert read(url) == CONTENT


def test_without_an_answer_the_copy_serves_and_without_the_file_it_does_not(
    server, another_process, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("hiera_video"), "propagate", True)
    urls = [f"{server.url}/{name}.bin" for name in "ab"]
    for url in urls:
        read(url)
    server.how = "down"
    another_process()
    for url in urls:
        assert read(url) == CONTENT
    # By text: a handler that another test has left writes a record twice.
    told = {record.getMessage() for record in caplog.records}
    assert sum("the local copy is used" in text for text in told) == 1  # the host is asked once
    assert len(server.asked) == 3
    server.how = "gone"
    server.content = b"another version"
    another_process()
    with pytest.raises(OSError, match="404"):
        io.local_path(urls[0])


@pytest.mark.parametrize("how", ["drip", "drip headers"])
def test_a_server_that_drips_is_given_up(server, how, monkeypatch):
    monkeypatch.setattr(fetch, "WINDOW_SEC", 0.5)
    server.how = how
    began = time.monotonic()
    with pytest.raises(OSError, match="too slow: [0-9]+ bytes came in"):
        io.local_path(f"{server.url}/a.bin")
    assert time.monotonic() - began < 10
    assert not os.path.exists(cache.cached_path(f"{server.url}/a.bin"))


def test_a_slow_server_that_keeps_the_pace_is_not(server, monkeypatch):
    monkeypatch.setattr(fetch, "WINDOW_SEC", 0.2)
    monkeypatch.setattr(fetch, "WINDOW_BYTES", 1)
    server.how, server.content = "drip", b"twenty bytes, slowly"
    assert read(f"{server.url}/a.bin") == server.content


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=AWS4&X-Amz-Signature=abc",
        "Expires=1&Signature=abc&Key-Pair-Id=x",
        "sv=2024&sig=abc",
        "token=abc",
        "a=b&access_token=abc",
        "X-Goog-Signature=abc",
        "api_key=",
    ],
)
def test_a_signed_url_leaves_nothing_behind(server, query, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    url = f"{server.url}/a.mp4?{query}"
    path = io.local_path(url)
    assert path.endswith("a.mp4")
    with open(path, "rb") as file:
        assert file.read() == CONTENT
    assert io.local_path(url) is path  # while somebody holds it
    assert len(server.asked) == 1
    del path, file  # whose name is the path
    gc.collect()
    assert not os.listdir(tmp_path / "temporary")
    assert not os.path.exists(cache.cached_path(url))
    server.content = b"new"
    assert read(url) == b"new"
    assert not cache.is_signed(f"{server.url}/a.mp4?version=2&design=x&author=y")


def test_a_video_by_a_signed_url_decodes(server, videos):
    with open(videos["h264_b.mp4"], "rb") as file:
        server.content = file.read()
    with open_video(f"{server.url}/v.mp4?token=x") as reader:
        gc.collect()
        assert len(reader.frames_at(range(reader.num_frames))) == 40
    assert len(server.asked) == 1


@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
def test_a_copy_that_does_not_decode_is_fetched_again(server, videos, backend):
    if backend == "decord":
        pytest.importorskip("decord")
    with open(videos["h264_index_first.mp4"], "rb") as file:
        server.content = file.read()
    url = f"{server.url}/v.mp4"
    server.how = "cut"
    with pytest.raises(DecodeError), open_video(url, backend) as reader:
        reader.frames_at(range(reader.num_frames))
    server.how = ""
    with open_video(url, backend) as reader:
        assert len(reader.frames_at(range(reader.num_frames))) == 40


def test_the_cache_is_bounded_and_keeps_what_others_put_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_GRACE_SEC", 0.0)
    monkeypatch.setenv("HIERA_VIDEO_CACHE_GIB", str(2.5 * len(CONTENT) / 2**30))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "anothers.bin").write_bytes(CONTENT * 9)
    urls = [f"{server.url}/{number}.bin" for number in range(4)]
    for url in urls:
        read(url)
        time.sleep(0.02)  # file systems count time in steps
    there = [os.path.exists(cache.cached_path(url)) for url in urls]
    assert there == [False, False, True, True]
    left = {name.partition("-")[2] or name for name in os.listdir(tmp_path / "cache")}
    files = {f"{number}.bin{ending}" for number in (2, 3) for ending in ("", ".origin", ".lock")}
    assert left == files | {"anothers.bin", "room.lock"}


def test_a_file_in_use_is_not_removed(server, monkeypatch):
    monkeypatch.setenv("HIERA_VIDEO_CACHE_GIB", "1e-9")
    urls = [f"{server.url}/{number}.bin" for number in range(3)]
    for url in urls:
        read(url)
    assert all(os.path.exists(cache.cached_path(url)) for url in urls)
    monkeypatch.setenv("HIERA_VIDEO_CACHE_GIB", "much")
    with pytest.raises(UserError, match="HIERA_VIDEO_CACHE_GIB must be a number above 0"):
        read(urls[0])


@pytest.mark.parametrize(
    "rest", ["/é č.bin", "/a b.bin?x=ü", "/%C3%A9.bin", "/a\x00.bin", "/a\n.bin", "/\u65e5.bin"]
)
def test_letters_that_no_url_may_hold_are_quoted(server, rest):
    assert read(server.url + rest) == CONTENT


@pytest.mark.parametrize(
    "url",
    [
        *("http://[::1", "http://a b/x", "http://127.0.0.1:port/x", "http://\udcff/x", "http:///x"),
        *("https://é" + 99 * "ü" + "/x", "s9://x/y", "http://127.0.0.1:99999/x", "reference://x"),
    ],
)
def test_a_broken_url_is_an_error_of_one_line_and_a_bad_video(server, url):
    with pytest.raises(OSError, match=".") as caught:
        io.local_path(url)
    assert "\n" not in str(caught.value)
    with pytest.raises(DecodeError, match="cannot be fetched"):
        open_video(url)
    io.forget_download(url)
