"""Test the upload of a video as a form: its fields, kinds of file, sizes and names."""

import re
import socket
from io import BytesIO
from pathlib import Path

import pytest

from .serving import BOUNDARY, FORM, checkpoint, client, content, form, part, wait_for

__all__ = ["checkpoint", "client", "content"]  # fixtures


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
    with pytest.raises(RefusalError, match=r"hold a file in its field 'video', and little else"):
        upload.write(bytes(50_000))


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
