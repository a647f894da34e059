"""Test the answers of the server, from the page to the predictions."""

import json
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np

from hiera_video import Predictor
from hiera_video.inference.windows import Grid, file_windows, make_grid
from hiera_video.serve import app

from .serving import FORM, NAMES, VIDEO, checkpoint, client, content, form, serving, wait_for

__all__ = ["checkpoint", "client", "content"]  # fixtures


def test_the_answer_is_that_of_the_sliding_clip(checkpoint, videos, tmp_path):
    predictor = Predictor(checkpoint, device="cpu")
    grid = make_grid(predictor.cfg, every_sec=0.2)
    with serving(checkpoint, tmp_path, every_sec=0.2) as client:
        for name in (VIDEO, "vp9.webm", "one_frame.mp4", "mpeg4.avi"):
            windows = list(file_windows(predictor, videos[name], grid))
            reply = client.send(Path(videos[name]).read_bytes())
            assert reply.status == 200
            found = reply.content
            assert [one["start_sec"] for one in found["windows"]] == [
                round(window.start_sec, 3) for window in windows
            ]
            for one, window in zip(found["windows"], windows, strict=True):
                assert one["end_sec"] == round(window.end_sec, 3)
                expected = window.prediction.top(5)
                assert [p["label"] for p in one["predictions"]] == [e.label for e in expected]
                scores = [p["score"] for p in one["predictions"]]
                assert np.allclose(scores, [e.score for e in expected], atol=1e-5)
            mean_K = np.mean([window.prediction.scores for window in windows], axis=0)
            assert [p["name"] for p in found["predictions"]] == [
                NAMES[label] for label in np.argsort(-mean_K)[:5]
            ]
            evidence = found["evidence"]
            assert evidence["labels"][:5] == [p["label"] for p in found["predictions"]]
            assert evidence["names"] == [NAMES[label] for label in evidence["labels"]]
            shown = np.array([w.prediction.scores[evidence["labels"]] for w in windows])
            assert np.allclose(evidence["scores"], shown, atol=1e-4)
            assert found["note"] == ""


def test_a_short_video_gets_more_windows_and_a_long_one_wider_apart(checkpoint, content, tmp_path):
    with serving(checkpoint, tmp_path, max_windows=3) as client:
        found = client.send(content).content
        assert len(found["windows"]) == 3
        assert found["windows"][-1]["end_sec"] > 0.9 * found["duration_sec"]
        assert "the model saw 3 windows, one every" in found["note"]


def test_the_page_and_what_it_needs_are_there(client):
    page = client.ask("GET", "/")
    assert "<title>hiera_video" in page.content["text"]
    for path in ("/page.js", "/chart.js", "/page.css", "/favicon.svg"):
        assert client.ask("GET", path).status == 200
    info = client.ask("GET", "/info").content
    assert (info["class_names"], info["max_upload_mb"], info["is_local"]) == (NAMES, 1, True)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_health_says_model_and_whether_it_is_ready(checkpoint, tmp_path):
    with serving(checkpoint, tmp_path) as client:
        found = client.ask("GET", "/health")
        assert (found.status, found.content) == (200, {"model": "hiera_micro_8x64", "ready": True})
        client.service._stopping.set()
        found = client.ask("GET", "/health")
        assert (found.status, found.content["ready"]) == (503, False)


def test_each_request_gets_a_line_in_the_access_log(checkpoint, content, tmp_path):
    lines = []
    with serving(checkpoint, tmp_path, access_log=lines.append) as client:
        client.ask("GET", "/health")
        client.send(content, file_name=b"a name.mp4")
        client.send(bytes(600))
        client.ask("GET", "/%1b[2J", headers={"Host": "elsewhere"})
    requests = [re.sub(r"^.*?\] | \d+ \d+\.\d{3}$", "", line) for line in lines]
    assert requests == [
        '"GET /health HTTP/1.1" 200',
        '"POST /predict HTTP/1.1" 200',
        '"POST /predict HTTP/1.1" 422',
        '"GET /%1b[2J HTTP/1.1" 403',
    ]


def test_other_addresses_and_methods_are_refused_in_json(client):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/serve.py", 404),
        ("GET", "/predict", 405),
        ("POST", "/", 405),
        ("DELETE", "/predict", 405),
    ):
        reply = client.ask(method, path)
        assert (reply.status, list(reply.content)) == (status, ["error"])


def test_more_uploads_than_may_wait_are_told_so(checkpoint, content, tmp_path):
    body = form(content)
    with (
        serving(checkpoint, tmp_path, max_waiting=0) as client,
        socket.create_connection(client.address, timeout=60) as line,
    ):
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode())
        line.sendall(body[:-5])
        wait_for(lambda: client.files() != [])
        reply = client.send(content)
        assert (reply.status, "is busy" in reply.error) == (503, True)
        assert reply.headers["retry-after"]
        line.sendall(body[-5:])
        assert line.recv(15) == b"HTTP/1.1 200 OK"
        wait_for(lambda: client.files() == [])
        assert client.send(content).status == 200


def test_many_at_a_time_are_answered_one_after_the_other(client, content):
    replies = []
    threads = [
        threading.Thread(target=lambda: replies.append(client.send(content))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 5
    plain = [json.dumps(reply.content["windows"]) for reply in replies]
    assert len(set(plain)) == 1


def test_a_name_tells_how_far_it_is(checkpoint, content, tmp_path, monkeypatch):
    with serving(checkpoint, tmp_path) as client:
        slow = client.service.analyst.predictor
        usual = slow.probabilities
        monkeypatch.setattr(slow, "probabilities", lambda clips: (time.sleep(0.3), usual(clips))[1])
        replies, seen = [], set()
        thread = threading.Thread(
            target=lambda: replies.append(
                client.ask("POST", "/predict?name=mine", form(content), FORM)
            )
        )
        thread.start()
        while thread.is_alive():
            reply = client.ask("GET", "/progress?name=mine")
            seen.add((reply.content["windows_done"], reply.content["windows"]))
            time.sleep(0.05)
        assert replies[0].status == 200
        total = len(replies[0].content["windows"])
        assert {total} == {all_of for _, all_of in seen if all_of}
        assert len({done for done, all_of in seen if all_of}) >= 2
        for name in ("mine", "other", ""):
            reply = client.ask("GET", f"/progress?name={name}")
            assert reply.content == {"windows_done": 0, "windows": 0}


def test_windows_are_as_many_as_they_may_be():
    from hiera_video.serve.read import window_starts

    grid = Grid(num_frames=8, spacing_sec=0.1, stride=4)
    assert list(window_starts(20, grid, least=1, most=60)) == [0, 4, 8, 12]
    assert list(window_starts(20, grid, least=8, most=60)) == list(range(13))
    assert list(window_starts(3, grid, least=8, most=60)) == [0]
    for most in (1, 2, 3, 7, 60):
        starts = window_starts(5000, grid, least=min(8, most), most=most)
        assert len(starts) <= most
        assert most == 1 or starts[-1] > 4000


def test_a_name_that_is_no_text_is_an_escape_in_the_answer():
    answer = app._json({"name": "a\ud800\x1b"})
    assert answer.body.isascii()
    assert json.loads(answer.body) == {"name": "a\ud800\x1b"}
