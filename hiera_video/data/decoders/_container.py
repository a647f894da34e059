"""Open files with FFmpeg, in this module alone; define the error that every decoder raises.

FFmpeg reads a relative name with a colon ("12:30:00.mp4", "pipe:0") as a protocol, so it gets
absolute paths only. Playlists and manifests (ffconcat, m3u8, DASH, SDP) name other files or hosts,
which FFmpeg then reads. So a file is opened only if its container holds its own pictures.
"""

from typing import IO, Any

import av

from hiera_video.utils.disk import absolute
from hiera_video.utils.errors import UserError
from hiera_video.utils.text import printable


class DecodeError(UserError):
    """A video cannot be read; the message names the path and the cause in one line."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"{printable(path)}: {cause}")
        self.path = path
        self.cause = cause

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str]]:
        # Loader workers pickle exceptions, and the default would call __init__ with one argument.
        return DecodeError, (self.path, self.cause)


def too_few(path: str, *, decoded: int, promised: int, index: int) -> DecodeError:
    """Return the error for a video that yields fewer frames than it promised."""
    return DecodeError(
        path,
        f"only {decoded} of the promised {promised} frames can be decoded and frame {index} was "
        "asked for; the file is damaged or truncated.",
    )


# FFmpeg's names of the allowed containers. Each reads only its own file. These are excluded on
# purpose: concat, hls, dash, imf, sdp, rtsp, rtp, sap, image2, vobsub, mlv (which continues in
# other files), scripts, devices, and formats of a single picture. jpeg_pipe is allowed because a
# raw motion JPEG file looks like one picture to FFmpeg. Audio formats are allowed so that the error
# can say "only audio".
CONTAINERS = ",".join(
    (
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,kux,asf,asf_o",
        "gif,apng,ogg,mxf,nut,ivf,rm,ivr,dv,wtv,swf,gxf,nsv,smk,bink,nuv,lxf,ty,pva,pmp,r3d",
        "h261,h263,h264,hevc,vvc,evc,m4v,mjpeg,mpjpeg,jpeg_pipe,mjpeg_2000,smjpeg,dirac,dnxhd,apv",
        "vc1,vc1test,cavsvideo,avs2,avs3,av1,obu,yuv4mpegpipe,rawvideo,cine,cdxl,filmstrip,ipu",
        "roq,flic,film_cpk,4xm,ea,xmv,thp,mtv,vivo,dxa,vmd,rpl,rl2,idcin,ipmovie,mm,mv,usm,dhav",
        "msnwctcp,moflex,mods,lmlm4,iv8,ifv,bfi,bmv,c93,jv,paf,psxstr,smush,tmv,wc3movie,wsvqa,yop",
        "ser,vividas,gdv,hnm,mvi,bethsoftvid,dsicin,tiertexseq,sga,frm,anm,avs,iff,jpegxl_anim",
        "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,tta,w64,wav,wv",
    )
)
_FROM_FILES = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}

# The first bytes of files that are not videos, or whose videos are in other files.
_PLAYLISTS = {
    b"ffconcat": "an ffconcat list",
    b"#EXTM3U": "an HLS playlist (m3u8)",
    b"v=0": "a description of a stream (SDP)",
    b"<?xml": "XML, such as a DASH or IMF manifest",
    b"<MPD": "a DASH manifest",
    b"# VobSub": "an index of subtitles (VobSub)",
    b"MLVI": "a Magic Lantern video, which may continue in other files",
}
_OTHERS = {
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
_PICTURES = {b"BM": "a BMP picture", b"II*\x00": "a TIFF picture", b"MM\x00*": "a TIFF picture"}
# The number of bytes at the start of a file that are examined.
HEAD_BYTES = 512
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\f")


def open_container(file: str | Any, path: str) -> av.container.InputContainer:
    """Open `file` with FFmpeg if its container holds its own pictures.

    `file` is a path or an object with `read`; `path` names the video in errors. Raises DecodeError,
    which names the kind of file if the first bytes show it.
    """
    name = absolute(file) if isinstance(file, str) else file
    try:
        # Do not refuse a video because its tags are not UTF-8.
        return av.open(name, container_options=_FROM_FILES, metadata_errors="replace")
    except av.FFmpegError:
        raise DecodeError(path, _cause(file)) from None


def open_output(file: str | IO[bytes], **options: Any) -> av.container.OutputContainer:
    """Open a path or a file object for writing a video; `options` are those of `av.open`."""
    name = absolute(file) if isinstance(file, str) else file
    return av.open(name, "w", **options)


def wrong_beginning(head: bytes) -> str:
    """Return the kind of file that starts with `head`, or "" if it may be a video."""
    for beginning, name in _OTHERS.items():
        if head.startswith(beginning):
            return name
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP"):
        # FFmpeg decodes still WebP pictures, but not animated ones.
        animated = "a WebP picture (an animated one must be converted, to mp4 say)"
        return "a sound file" if head[8:12] == b"WAVE" else animated
    # Playlists and lists of videos are also text. FFmpeg would open the files that they name.
    if head and _is_text(head[:HEAD_BYTES]):
        return "text"
    return ""


def _cause(file: str | Any) -> str:
    """Return the error text for a `file` that is not a video: what it is, and what to do."""
    head = b""
    if isinstance(file, str):
        try:
            with open(file, "rb") as opened:
                head = opened.read(HEAD_BYTES)
        except OSError as error:  # deleted since the last check, or a failing disk
            return f"cannot be read ({error.strerror or type(error).__name__})."
    plain = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, name in _PLAYLISTS.items():
        if plain.startswith(beginning):
            return (
                f"is not a readable video but {name}; its pictures lie elsewhere. Try the videos "
                "that it names."
            )
    pictures = (name for beginning, name in _PICTURES.items() if head.startswith(beginning))
    if name := wrong_beginning(head) or next(pictures, ""):
        return f"is not a readable video but {name}."
    return "is not a readable video: unknown format, or damaged or truncated in its header."


def _is_text(head: bytes) -> bool:
    if _TEXT.issuperset(head):
        return True
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")  # cut in the middle of a character
    return all(letter.isprintable() or letter in "\t\n\r\f\ufeff" for letter in text)
