import asyncio
import json
import re
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

import uvicorn

from hiera_video.serve.http_server import AccessLog, Connection, access_line

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def serving(app=None, **limits):
    """Serve an ASGI app whose connections have `limits`; yield its address and its log's lines."""
    lines = []
    kind = type("Limited", (Connection,), limits)
    config = uvicorn.Config(
        AccessLog(app or greet, lines.append),
        http=partial(kind, log=lines.append),
        ws="none",
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield address, lines
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)
            assert not thread.is_alive()


async def greet(scope, receive, send, *, status=200, body=b"hello"):
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def connect(address, **more):
    return socket.create_connection(address, timeout=30, **more)


def read_all(line):
    """What comes until the other side closes."""
    found = b""
    while piece := line.recv(65536):
        found += piece
    return found


def ask(address, request=ASK, **more):
    with connect(address, **more) as line:
        line.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        return read_all(line)


def test_connections_with_slow_headers_keep_nobody_out():
    with serving() as (address, _), ExitStack() as stack:
        slow = []
        for _ in range(80):
            slow.append(stack.enter_context(connect(address)))
            slow[-1].sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            assert ask(address).endswith(b"hello")
        assert read_all(slow[0]).startswith(b"HTTP/1.1 503")  # the oldest made room
        slow[-1].sendall(b"no\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(slow[-1]).endswith(b"hello")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers to all of 127.0.0.0/8")
def test_many_clients_leave_room_for_another():
    addresses = [("127.0.0.2", 0), ("127.0.0.3", 0)]
    with serving(MAX_CONNECTIONS=8, MAX_PER_CLIENT=6) as (address, _), ExitStack() as stack:
        quiet = stack.enter_context(connect(address))
        for source in addresses:
            for _ in range(6):
                stack.enter_context(connect(address, source_address=source)).sendall(b"GET ")
        time.sleep(0.2)
        quiet.sendall(ASK)  # the oldest of all, but the others have more
        assert b"200 OK" in quiet.recv(1000)


@pytest.mark.parametrize(
    ("first", "answer"),
    [(b"", b""), (b"GET / HTTP/1.1\r\n", b"HTTP/1.1 408"), (ASK + b"GET", b"HTTP/1.1 408")],
)
def test_a_request_must_come_in_time(first, answer):
    with serving(HEADER_SEC=0.4) as (address, lines), connect(address) as line:
        line.sendall(first)
        began = time.monotonic()
        found = read_all(line).rsplit(b"hello", 1)[-1]
        assert 0.3 < time.monotonic() - began < 10
        assert found.startswith(answer)
        assert bool(found) == bool(answer)
        assert [row for row in lines if '"-" 408' in row] == lines[len(lines) - bool(answer) :]


def test_bytes_now_and_then_are_no_request():
    with serving(HEADER_SEC=0.5) as (address, _), connect(address) as line:
        line.sendall(b"GET / HTTP/1.1\r\nX: ")
        line.settimeout(0.05)
        for _ in range(400):
            line.sendall(b"x")
            try:
                answer = line.recv(100)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_request_in_work_has_no_deadline():
    async def slow(scope, receive, send):
        await asyncio.sleep(1)
        await greet(scope, receive, send)

    with serving(slow, HEADER_SEC=0.1) as (address, _):
        assert ask(address).endswith(b"hello")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers to all of 127.0.0.0/8")
def test_who_has_too_many_requests_in_work_is_told_so_and_others_are_answered():
    async def app(scope, receive, send):
        if scope["path"] == "/wait":
            await receive()
            await receive()  # until the client goes
        await greet(scope, receive, send)

    with serving(app, MAX_PER_CLIENT=3) as (address, lines), ExitStack() as stack:
        for _ in range(3):
            line = stack.enter_context(connect(address))
            line.sendall(ASK.replace(b"/ ", b"/wait "))
        time.sleep(0.3)
        found = ask(address)
        head, body = found.split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in head.lower()
        assert "Too many connections from your address" in json.loads(body)["error"]
        assert ask(address, source_address=("127.0.0.2", 0)).endswith(b"hello")
        stack.close()
        give_up_at = time.monotonic() + 20
        while not ask(address).endswith(b"hello"):
            assert time.monotonic() < give_up_at
        assert re.match(r'127.0.0.1 .* "GET / HTTP/1.1" 503 \d+ ', lines[0])


def test_each_request_gets_a_line():
    with serving(partial(greet, status=418, body=b"x" * 1234)) as (address, lines):
        ask(address, b"GET /a%20b?c=d%0Ae HTTP/1.1\r\nHost: x\r\n\r\n")
        ask(address, b"nonsense\r\n\r\n")
        ask(address, b'GET /"/\x5c?" HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: a"\xff\x85 b\r\n\r\n')
    when = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    for line, expected in zip(
        lines,
        (
            r'127\.0\.0\.1 - - WHEN "GET /a%20b\?c=d%0Ae HTTP/1\.1" 418 1234 \d+\.\d{3}',
            r'127\.0\.0\.1 - - WHEN "-" 400 0 0\.000',
            r'a\\x22\S+ - - WHEN "GET /\\x22/\\x5c\?\\x22 HTTP/1\.1" 418 1234 \d+\.\d{3}',
        ),
        strict=True,
    ):
        assert re.fullmatch(expected.replace("WHEN", when), line), line
        assert line.isascii()


def test_an_app_that_fails_gets_its_line():
    async def fails(scope, receive, send):
        raise KeyError("a bug")

    with serving(fails) as (address, lines):
        assert ask(address).startswith(b"HTTP/1.1 500")
    assert '"GET / HTTP/1.1" 500' in lines[0]


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\udcff", "é\u202e", '"', "\\", "\x7f\x85"])
def test_nothing_that_a_terminal_obeys_is_in_a_line(text):
    line = access_line(text, f"GET {text}", 200, num_bytes=0, elapsed_sec=0.0)
    assert line.isascii()
    assert line.isprintable()
    assert line.count('"') == 2
    assert len(line.split(" ")) == 10
