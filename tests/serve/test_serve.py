import json
import re
import socket
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from hiera_video import Predictor
from hiera_video.inference.windows import Grid, file_windows, make_grid
from hiera_video.serve import app

from .serving import BOUNDARY, FORM, NAMES, checkpoint, client, form, part, serving

__all__ = ["checkpoint", "client"]  # fixtures

VIDEO = "h264_index_first.mp4"


@pytest.fixture
def content(videos):
    return Path(videos[VIDEO]).read_bytes()


def wait_for(is_so, seconds=20):
    give_up_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


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
        assert "3 windows were looked at, one every" in found["note"]


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


def test_a_form_may_hold_other_fields(client, content):
    body = part(b"hello", name=b"note", file_name=None) + part(b"x", name=b"other") + form(content)
    assert client.ask("POST", "/predict", body, FORM).status == 200


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("half_a_header.mp4", "This file holds no video stream"),
        ("no_header.mp4", "not a readable video"),
        ("cut_off.mp4", "only .* frames can be decoded|damaged or truncated"),
        ("unknown_codec.mp4", "its video is in a codec|cannot be used"),
        ("noise.mp4", "not a readable video"),
        ("sound.wav", "This file is a sound file, not a video."),
        ("empty.mp4", "The file is empty"),
    ],
)
def test_a_bad_file_gets_a_sentence(client, bad_videos, name, message):
    reply = client.send(Path(bad_videos[name]).read_bytes())
    assert 400 <= reply.status < 500
    assert list(reply.content) == ["error"]
    assert reply.error.endswith(".")
    assert "\n" not in reply.error
    assert str(client.room) not in reply.error
    assert re.search(message, reply.error), reply.error
    assert client.files() == []


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "text"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "text"),
        (b"<!DOCTYPE html><p>caf\xc3\xa9</p>" + 300 * b"\xc3\xa9", "text"),
        (b"%PDF-1.7\n\x00\xff", "a PDF document"),
        (b"PK\x03\x04\x00\x00", "a zip archive or an office document"),
        (b"\x89PNG\r\n\x1a\n\x00", "a PNG picture"),
        (b"\x7fELF\x02\x01", "a program"),
    ],
)
def test_what_is_obviously_no_video_is_refused_without_decoding(client, head, kind):
    reply = client.send(head + (b"a" * 600 if kind == "text" else bytes(600)))
    assert (reply.status, reply.error) == (415, f"This file is {kind}, not a video.")


def test_a_playlist_that_hides_behind_bytes_that_are_no_text_opens_nothing(client, content):
    # FFmpeg itself would open what it names.
    lists = (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n\x00\xff\xff"
    )
    reply = client.send(lists)
    assert (reply.status, "not a readable video" in reply.error) == (422, True)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{}", {"Content-Type": "application/json"}, 415, "must come as a form"),
        (b"", {}, 415, "must come as a form"),
        (b"x", {"Content-Type": "multipart/form-data"}, 415, "must come as a form"),
        (b"x", {"Content-Type": f"multipart/form-data; boundary={'b' * 999}"}, 400, "damaged"),
        (form(), FORM, 400, "must hold a file in its field 'video'"),
        (form(b"abc", name=b"film"), FORM, 400, "must hold a file in its field 'video'"),
        (form(b"abc", file_name=None), FORM, 400, "must be a file, got text"),
        (form(bytes(600), bytes(600)), FORM, 400, "one video, got several"),
        (form(bytes(9), kind=b"text/html"), FORM, 415, "This file is text, not a video."),
        (form(bytes(9), kind=b"Audio/MPEG; x=1"), FORM, 415, "a sound file"),
        (form(bytes(9), kind=b"image/png"), FORM, 415, "a picture"),
        (b"no form at all", FORM, 400, "incomplete or damaged"),
        (form(bytes(999))[:-20], FORM, 400, "incomplete or damaged"),
        (part(bytes(10))[:40], FORM, 400, "incomplete or damaged"),
        (b"--" + BOUNDARY.encode() + b"\r\n" + b"A: b\r\n" * 9999, FORM, 400, "damaged"),
    ],
)
def test_a_wrong_form_is_refused(client, body, headers, status, message):
    reply = client.ask("POST", "/predict", body, headers)
    assert (reply.status, message in reply.error) == (status, True), reply.error
    assert client.files() == []


def test_a_large_file_in_another_field_is_not_read_to_its_end(checkpoint):
    from hiera_video.serve.upload import RefusalError, VideoForm

    upload = VideoForm(FORM["Content-Type"], BytesIO(), max_bytes=200_000_000)
    upload.write(part(bytes(9), name=b"film")[:-2])
    upload.write(bytes(50_000))
    with pytest.raises(RefusalError, match=r"must hold a file in its field 'video', and little"):
        upload.write(bytes(50_000))


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


def test_a_file_that_is_too_large_is_refused_at_its_announcement(client):
    reply = client.send(bytes(2_000_000))
    assert (reply.status, reply.error) == (
        413,
        "The file is too large: this server takes up to 1 MB.",
    )


def test_who_asks_before_sending_is_spared_it(client):
    with socket.create_connection(client.address, timeout=30) as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n"
            b"Expect: 100-continue\r\nContent-Type: " + FORM["Content-Type"].encode() + b"\r\n\r\n"
        )
        assert line.recv(12) == b"HTTP/1.1 413"


def test_a_file_that_is_too_large_is_refused_while_it_comes(client, content):
    sent = []

    def endless():
        yield part(content)[:-2]
        for _ in range(1000):
            sent.append(max(map(len, map(read, client.room.rglob("upload_*"))), default=0))
            yield bytes(50_000)

    def read(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""

    try:
        reply = client.ask("POST", "/predict", endless(), FORM, chunked=True)
        assert reply.status == 413
    except ConnectionError:
        pass  # it does not listen any more
    assert len(sent) < 1000
    assert max(sent) <= 1_000_000
    wait_for(lambda: client.files() == [])


@pytest.mark.parametrize(
    "name",
    [
        b"../../x.mp4",
        b"..\\..\\x.mp4",
        b"/etc/x.mp4",
        b"C:\\x.mp4",
        b"a\x00b.mp4",
        b"",
        b".",
        b"lock",
        b"~/x.mp4",
        b"x" * 3000,
        "ü\u202e4pm.\u043c\u0440".encode(),
        b"\xff\xfe.mp4",
        b"http://example.org/x.mp4",
        b"concat:/etc/passwd",
        b"%2e%2e%2fx.mp4",
        b'a;b=c\\"d.mp4',
    ],
)
def test_the_name_of_a_file_is_never_a_path(client, content, name):
    roots = {path.parent for path in (client.room, client.room.parent)} | {client.room, Path.cwd()}
    before = {root: sorted(path.name for path in root.iterdir()) for root in roots}
    reply = client.send(content, file_name=name)
    assert reply.status == 200, reply.content
    assert {root: sorted(path.name for path in root.iterdir()) for root in roots} == before
    assert client.files() == []


def test_a_client_that_goes_while_it_sends_leaves_nothing(client, content):
    body = form(content)
    for length in (10, 200, len(body) // 2, len(body) - 3):
        with socket.create_connection(client.address, timeout=30) as line:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            line.sendall(f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode())
            line.sendall(body[:length])
            if length > 200:
                wait_for(lambda: client.files() != [])
        wait_for(lambda: client.files() == [])
    assert client.send(content).status == 200


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


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org:8000",
        "",
        "127.0.0.1@example.org",
        "localhost.example.org",
        "10.0.0.1",
        "[::1",
    ],
)
def test_a_foreign_host_is_refused(client, content, host):
    for method, path in (("GET", "/"), ("POST", "/predict")):
        reply = client.ask(method, path, form(content), {**FORM, "Host": host})
        assert (reply.status, list(reply.content)) == (403, ["error"])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:8000"])
def test_names_of_this_machine_are_welcome(client, host):
    assert client.ask("GET", "/", headers={"Host": host}).status == 200


def test_pages_of_elsewhere_get_nothing(client, content):
    for headers in (
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        reply = client.ask("POST", "/predict", form(content), {**FORM, **headers})
        assert (reply.status, reply.error) == (403, "Requests of other pages are refused.")
    wish = {"Origin": client.service.url, "Access-Control-Request-Method": "POST"}
    for method, headers in (("OPTIONS", wish), ("GET", {"Origin": client.service.url})):
        reply = client.ask(method, "/predict", headers=headers)
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]
    same = {"Origin": client.service.url, "Sec-Fetch-Site": "same-origin"}
    assert client.ask("POST", "/predict", form(content), {**FORM, **same}).status == 200


def test_a_name_that_is_allowed_is_welcome(checkpoint, tmp_path):
    with serving(checkpoint, tmp_path, allow_hosts=["my.lan"]) as client:
        assert client.ask("GET", "/", headers={"Host": "MY.lan:8000"}).status == 200
        assert client.ask("GET", "/", headers={"Host": "other.lan"}).status == 403


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
