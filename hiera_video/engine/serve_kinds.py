"""Files that are obviously no videos, told by their first bytes or by what a client calls them.

What passes is no video yet: that the decoder decides.
"""

_BEGINNINGS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive or an office document",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"ID3": "a sound file",
    b"fLaC": "a sound file",
    b"SQLite format 3": "a database",
}
# The least that is looked at, if the file has so much.
HEAD_BYTES = 512
_TYPES = {
    "application/json": "JSON",
    "application/pdf": "a PDF document",
    "application/zip": "a zip archive",
    "application/x-msdownload": "a program",
}
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\f")


def wrong_type(content_type: str) -> str:
    """Return what a file is that is called so, "" if it may be a video."""
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind in _TYPES:
        return _TYPES[kind]
    room = kind.split("/", 1)[0]
    if room == "image" and kind not in ("image/gif", "image/apng"):
        return "a picture"
    return {"text": "text", "audio": "a sound file", "font": "a font"}.get(room, "")


def wrong_beginning(head: bytes) -> str:
    """Return what a file is that begins so, "" if it may be a video."""
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return name
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP"):
        return "a sound file" if head[8:12] == b"WAVE" else "a picture"
    # Playlists and lists of videos are text, too, and make FFmpeg open what they name.
    if head and _is_text(head[:HEAD_BYTES]):
        return "text"
    return ""


def _is_text(head: bytes) -> bool:
    if _TEXT.issuperset(head):
        return True
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")  # cut in the middle of a letter
    return all(letter.isprintable() or letter in "\t\n\r\f\ufeff" for letter in text)
