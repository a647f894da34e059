"""List the kinds of video files that ffmpeg can write: containers, codecs, rates and tags."""

from collections.abc import Iterator
from dataclasses import dataclass

# The size of the pictures, unless the codec requires another one.
SIZE = "96x64"

X264 = "-c:v libx264 -g 12 -bf 3 -sc_threshold 0"
X265 = "-c:v libx265 -x265-params log-level=none:keyint=12:bframes=3"
VP9 = "-c:v libvpx-vp9 -g 12 -b:v 400k -deadline realtime -cpu-used 8"
AV1 = "-c:v libsvtav1 -preset 12 -g 12"
MPEG4 = "-c:v mpeg4 -g 12 -q:v 2"
MPEG2 = "-c:v mpeg2video -g 12 -bf 2 -q:v 2"


@dataclass(frozen=True, slots=True)
class Kind:
    """A file to make; `codec` and `container` name its row in the table.

    options: words for the encoder and the container. filters: for `-vf`, before the encoder.
    copied: options of a second pass that copies the packets. passes: of the encoder.
    """

    codec: str
    container: str
    options: str
    fps: str = "25"
    size: str = SIZE
    filters: str = ""
    copied: str = ""
    input_options: str = ""
    passes: int = 1
    note: str = ""

    @property
    def name(self) -> str:
        """Return the name of the file."""
        words = " ".join(filter(None, (self.codec, self.note, self.fps.replace("/", "-"))))
        return f"{words}.{self.container}"


# The encoder's options for each codec, and the containers that may hold it. Combinations that
# ffmpeg refuses to write are left out of the table.
PLAIN: dict[str, tuple[str, str]] = {
    "h264": (X264, "mp4 mov mkv avi ts m2ts flv f4v 3gp nut asf mxf vob"),
    "hevc": (X265, "mp4 mov mkv ts nut"),
    "vp8": ("-c:v libvpx -g 12 -b:v 400k -deadline realtime", "webm mkv avi nut ivf"),
    "vp9": (VP9, "webm mkv mp4 nut ivf"),
    "av1": (AV1, "mp4 mkv webm ivf"),
    "mpeg1": ("-c:v mpeg1video -g 12 -bf 2 -q:v 2", "mpg ts avi mkv mov"),
    "mpeg2": (MPEG2, "vob mpg ts m2ts mkv avi mov mp4 mxf nut"),
    "mpeg4": (MPEG4, "avi mp4 mov mkv 3gp asf nut ts"),
    "mpeg4 with B-frames": (MPEG4 + " -bf 2", "avi mp4 mkv nut ts"),
    "xvid": ("-c:v libxvid -g 12 -q:v 2 -bf 2", "avi mp4 mkv"),
    "h263": ("-c:v h263 -g 12 -q:v 2", "3gp avi mov mkv"),
    "h261": ("-c:v h261 -g 12 -q:v 2", "avi mkv mov"),
    "flv1": ("-c:v flv -g 12 -q:v 2", "flv avi mkv swf"),
    "mjpeg": ("-c:v mjpeg -q:v 2", "avi mov mkv mp4 nut swf mxf"),
    "jpeg2000": ("-c:v jpeg2000", "mov mp4 mkv avi mxf"),
    "prores": ("-c:v prores_ks -profile:v 2", "mov mkv mxf"),
    "prores 4444": ("-c:v prores_ks -profile:v 4 -pix_fmt yuva444p10le", "mov mkv"),
    "dnxhd": ("-c:v dnxhd -profile:v dnxhr_sq -pix_fmt yuv422p", "mov mxf mkv"),
    "ffv1": ("-c:v ffv1 -g 12", "mkv avi nut mov"),
    "huffyuv": ("-c:v huffyuv -pix_fmt yuv422p", "avi mkv mov nut"),
    "ffvhuff": ("-c:v ffvhuff -pix_fmt yuv420p", "avi mkv"),
    "utvideo": ("-c:v utvideo -pix_fmt yuv420p", "avi mkv mov"),
    "magicyuv": ("-c:v magicyuv -pix_fmt yuv420p", "avi mkv"),
    "raw yuv420p": ("-c:v rawvideo -pix_fmt yuv420p", "avi nut mkv"),
    "raw rgb24": ("-c:v rawvideo -pix_fmt rgb24", "mov nut mkv"),
    "raw bgr24": ("-c:v rawvideo -pix_fmt bgr24", "avi nut"),
    "raw pal8": ("-c:v rawvideo -pix_fmt pal8", "avi mov nut"),
    "raw gray": ("-c:v rawvideo -pix_fmt gray", "avi nut mkv"),
    "v210": ("-c:v v210 -pix_fmt yuv422p10le", "mov avi mkv"),
    "qtrle": ("-c:v qtrle -g 12 -pix_fmt rgb24", "mov mkv"),
    "qtrle gray": ("-c:v qtrle -g 12 -pix_fmt gray", "mov"),
    "png": ("-c:v png -pix_fmt rgb24", "mov avi mkv"),
    "png pal8": ("-c:v png -pix_fmt pal8", "mov avi mkv"),
    "gif": ("-c:v gif", "gif"),
    "apng": ("-c:v apng", "apng"),
    "webp": ("-c:v libwebp_anim -q:v 90", "webp"),
    "theora": ("-c:v libtheora -g 12 -q:v 9", "ogv ogg mkv avi"),
    "wmv1": ("-c:v wmv1 -g 12 -q:v 2", "wmv avi mkv"),
    "wmv2": ("-c:v wmv2 -g 12 -q:v 2", "wmv avi mkv"),
    "msmpeg4v2": ("-c:v msmpeg4v2 -g 12 -q:v 2", "avi asf mkv"),
    "msmpeg4v3": ("-c:v msmpeg4 -g 12 -q:v 2", "avi asf mkv"),
    "cinepak": ("-c:v cinepak -g 12", "avi mov mkv"),
    "svq1": ("-c:v svq1 -g 12 -q:v 2", "mov mkv"),
    "msvideo1": ("-c:v msvideo1 -g 12", "avi"),
    "rpza": ("-c:v rpza -pix_fmt rgb555", "mov"),
    "smc": ("-c:v smc -pix_fmt pal8", "mov"),
    "rv10": ("-c:v rv10 -g 12 -q:v 2", "rm"),
    "rv20": ("-c:v rv20 -g 12 -q:v 2", "rm mkv"),
    "flashsv": ("-c:v flashsv -g 12 -pix_fmt bgr24", "flv avi"),
    "zmbv": ("-c:v zmbv -g 12 -pix_fmt bgr0", "avi mkv"),
    "zmbv pal8": ("-c:v zmbv -g 12 -pix_fmt pal8", "avi"),
    "snow": ("-c:v snow -g 12 -q:v 2 -pix_fmt yuv420p", "avi nut"),
    "dirac": ("-c:v vc2 -pix_fmt yuv422p", "mkv mov ts"),
    "asv1": ("-c:v asv1 -q:v 2", "avi"),
    "dv": ("-c:v dvvideo -pix_fmt yuv420p", "dv avi mov mkv mxf"),
    "raw, y4m": ("-pix_fmt yuv420p", "y4m"),
}
_SIZES = {
    **dict.fromkeys(("h263",), "128x96"),
    **dict.fromkeys(("h261", "rv10", "rv20"), "176x144"),
    **dict.fromkeys(("dnxhd",), "256x128"),
    **dict.fromkeys(("v210", "prores", "prores 4444"), "192x128"),
    "dv": "720x576",
}

# Variants: codec, container(s), other fields of Kind.
_VARIANTS: list[tuple[str, str, dict[str, str | int]]] = [
    *(
        ("h264", containers, {"options": f"{X264} {more}", "note": note})
        for containers, note, more in (
            ("mp4 mkv ts", "open groups", "-x264-params open-gop=1"),
            ("mp4 mkv ts avi", "without B-frames", "-bf 0"),
            ("mp4 mkv", "intra refresh", "-x264-params intra-refresh=1:bframes=0"),
            ("mp4 mkv ts", "interlaced", "-flags +ildct+ilme -x264-params tff=1"),
            ("mp4 mkv", "4-4-4", "-pix_fmt yuv444p"),
            ("mp4 mkv", "10 bit", "-pix_fmt yuv420p10le"),
            ("mp4 mkv", "lossless", "-qp 0"),
            ("mp4 mkv", "gray", "-pix_fmt gray"),
            ("mp4", "index first", "-movflags faststart"),
            ("mp4", "fragments", "-movflags frag_keyframe+empty_moov"),
            ("mp4", "no edit list", "-use_editlist 0"),
            ("mp4 mkv ts flv", "late start", "-output_ts_offset 7.3"),
            ("mkv", "live", "-live 1"),
        )
    ),
    ("h264", "mp4 mkv", {"options": "-c:v libx264rgb -g 12 -bf 3", "note": "rgb"}),
    (
        "h264",
        "mp4 mkv avi",
        {"size": "97x65", "options": f"{X264} -pix_fmt yuv444p", "note": "odd"},
    ),
    *(
        ("h264", "mp4 mov", {"copied": f"-metadata:s:v rotate={angle}", "note": f"turned {angle}"})
        for angle in (90, 180, 270)
    ),
    ("h264", "mp4 mov", {"input_options": "-ss 0.3", "copied": "-c copy", "note": "edit list"}),
    *(
        (codec, containers, {"filters": "setsar=2/1", "note": "wide pixels"})
        for codec, containers in (("h264", "mp4 mkv ts avi"), ("mpeg2", "vob"), ("vp9", "webm"))
    ),
    *(
        (codec, containers, {"filters": "VARIABLE", "note": "variable rate"})
        for codec, containers in (
            ("h264", "mp4 mov mkv flv nut ts asf"),
            *(("vp8", "webm"), ("vp9", "webm mp4"), ("av1", "mp4 mkv"), ("hevc", "mp4 mkv")),
            *(("mpeg4", "avi mkv mp4"), ("gif", "gif"), ("apng", "apng"), ("webp", "webp")),
            *(("ffv1", "mkv"), ("mjpeg", "avi mov")),
        )
    ),
    *(
        (codec, containers, {"fps": fps})
        for fps in ("24000/1001", "30000/1001", "60000/1001")
        for codec, containers in (
            ("h264", "mp4 mkv avi ts flv"),
            *(("vp9", "webm"), ("mpeg2", "vob ts"), ("mpeg4", "avi"), ("gif", "gif")),
            ("prores", "mov"),
        )
    ),
    ("hevc", "mp4 mkv", {"options": f"{X265} -pix_fmt yuv420p10le", "note": "10 bit"}),
    ("hevc", "mp4", {"options": f"{X265} -pix_fmt yuv444p", "note": "4-4-4"}),
    ("hevc", "mp4 mkv ts", {"options": f"{X265}:open-gop=1", "note": "open groups"}),
    ("vp9", "webm mkv", {"options": f"{VP9} -pix_fmt yuv420p10le", "note": "10 bit"}),
    ("vp9", "webm", {"options": f"{VP9} -pix_fmt yuv444p", "note": "4-4-4"}),
    ("vp9", "webm mp4", {"size": "97x65", "note": "odd"}),
    *(
        ("vp9", containers, {"options": _ALT_REF, "passes": 2, "note": note, "copied": copied})
        for _ALT_REF in ("-c:v libvpx-vp9 -g 48 -b:v 100k -auto-alt-ref 1 -lag-in-frames 12",)
        for containers, note, copied in (
            ("webm mp4", "alt-ref", ""),
            ("webm mp4", "alt-ref split", "-bsf:v vp9_superframe_split -fflags -autobsf"),
        )
    ),
    (
        "vp8",
        "webm",
        {
            "options": "-c:v libvpx -g 48 -b:v 100k -auto-alt-ref 1 -lag-in-frames 12",
            "passes": 2,
            "note": "alt-ref",
        },
    ),
    ("av1", "mp4 mkv", {"options": f"{AV1} -pix_fmt yuv420p10le", "note": "10 bit"}),
    ("mpeg2", "ts vob", {"options": f"{MPEG2} -flags +ildct+ilme", "note": "interlaced"}),
    ("mpeg2", "mkv mxf", {"options": f"{MPEG2} -pix_fmt yuv422p", "note": "4-2-2"}),
    ("ffv1", "mkv", {"options": "-c:v ffv1 -pix_fmt yuv420p10le", "note": "10 bit"}),
    ("ffv1", "mkv avi", {"size": "97x65", "note": "odd"}),
    ("mjpeg", "avi mov", {"size": "97x65", "note": "odd"}),
    ("mpeg4", "avi mp4", {"size": "97x65", "note": "odd"}),
]


def all_kinds() -> Iterator[Kind]:
    """Yield every kind of file, plain ones first."""
    for codec, (options, containers) in PLAIN.items():
        for container in containers.split():
            yield _kind(codec, container, {"options": options})
    for codec, containers, fields in _VARIANTS:
        for container in containers.split():
            yield _kind(codec, container, {"options": PLAIN[codec][0], **fields})


def _kind(codec: str, container: str, fields: dict[str, str | int]) -> Kind:
    return Kind(codec, container, **{"size": _SIZES.get(codec, SIZE), **fields})  # type: ignore[arg-type]
