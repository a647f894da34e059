"""Damaged, foreign and malicious uploads: each gets an answer, and none leaves a file."""

import importlib.util
import socket
from pathlib import Path

import numpy as np
import pytest

from .serving import FORM, checkpoint, form, part, serving

__all__ = ["checkpoint"]  # a fixture

MUTANTS = Path(__file__).parent.parent / "faults" / "mutants.py"
NAMES = [b"x.mp4", b"../../x.mp4", b"/tmp/x.mp4", b"a\x00b", b"x" * 3000, b"\xff\xfe", b"..", b""]


@pytest.fixture(scope="module")
def mutants():
    spec = importlib.util.spec_from_file_location("mutants", MUTANTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sources(mutants, tmp_path_factory):
    return mutants.make_sources(tmp_path_factory.mktemp("sources"))


def listing(*roots):
    """All files; but for the socket of multiprocessing's own, by which processes are started."""
    found = {str(path) for root in roots for path in root.rglob("*")}
    return {path for path in found if "/pymp-" not in path and "__pycache__" not in path}


def fuzz(client, mutants, sources, *, files, seed):
    """Send damaged videos, each under one of the names; return how many got which status."""
    statuses = {}
    for number in range(files):
        _, content = mutants.mutant(number, seed, sources)
        reply = client.send(content, file_name=NAMES[number % len(NAMES)])
        assert reply.status == 200 or 400 <= reply.status < 500, (number, reply)
        if reply.status == 200:
            assert np.isfinite(reply.content["evidence"]["scores"]).all()
        else:
            assert list(reply.content) == ["error"]
            assert reply.error.endswith("."), (number, reply.error)
            assert str(client.room) not in reply.error
        assert client.files() == []
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
    return statuses


def spoil_forms(client, content, *, number, seed):
    """Send requests whose form or length is broken, and hang up in the middle of others."""
    rng = np.random.default_rng(seed)
    whole = np.frombuffer(form(content[:3000]) + part(b"x", name=b"more"), np.uint8)
    for _ in range(number):
        body = whole.copy()
        kind = rng.integers(4)
        if kind == 0:  # bytes changed near the form's own words
            body[rng.integers(0, 200, size=5)] = rng.integers(256, size=5, dtype=np.uint8)
        elif kind == 1:
            body = body[: rng.integers(len(body))]
        elif kind == 2:
            body = np.concatenate([body, body[rng.integers(len(body)) :]])
        length = len(body) + (int(rng.integers(1, 999)) if kind == 3 else 0)
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        with socket.create_connection(client.address, timeout=30) as line:
            line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode())
            line.sendall(body.tobytes())
            if kind != 3:
                assert line.recv(9) == b"HTTP/1.1 "
                assert line.recv(1) in b"24"


def run(checkpoint, tmp_path, mutants, sources, *, files, forms, seed):
    room = tmp_path / "deep" / "room"
    room.mkdir(parents=True)
    before = listing(tmp_path, Path.cwd() / "tools")
    with serving(checkpoint, room, max_upload_mb=1) as client:
        statuses = fuzz(client, mutants, sources, files=files, seed=seed)
        whole = sources["h264_index_first.mp4"]
        spoil_forms(client, whole, number=forms, seed=seed)
        assert client.send(bytes(2_000_000)).status == 413
        assert client.send(whole).status == 200
        assert client.files() == []
    assert listing(tmp_path, Path.cwd() / "tools") == before
    return statuses


def test_some_damaged_uploads(checkpoint, tmp_path, mutants, sources):
    statuses = run(checkpoint, tmp_path, mutants, sources, files=28, forms=12, seed=1)
    assert len(statuses) > 1


@pytest.mark.slow
def test_two_hundred_damaged_uploads(checkpoint, tmp_path, mutants, sources):
    statuses = run(checkpoint, tmp_path, mutants, sources, files=200, forms=200, seed=0)
    print(statuses)
    assert statuses[200] > 20
    assert sum(statuses.values()) == 200
