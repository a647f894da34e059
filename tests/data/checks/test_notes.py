from hiera_video.data.checks.fingerprint import VideoFacts
from hiera_video.data.checks.notes import find_notes
from hiera_video.data.records import NO_LABEL, VideoRecord

GOOD = VideoFacts(30, 1.0, 64, 48, "h264", is_short=False)
SHORT = VideoFacts(3, 0.1, 64, 48, "h264", is_short=True)


def test_what_is_odd_about_a_list_is_told() -> None:
    rows = [("a", 0), ("b", 0), ("a", 1), ("c", 2), ("c", 2), ("d", 0), ("e", 0), ("f", 0)]
    records = [VideoRecord(path, label, i) for i, (path, label) in enumerate(rows)]
    facts = {"a": GOOD, "b": None, "c": SHORT, "d": SHORT, "e": SHORT, "f": SHORT}
    notes = {note.kind: note for note in find_notes(records, 5, facts, class_names="vwxyz")}
    assert notes["listed twice"].concerned == ("a", "c")
    assert notes["two labels"].concerned == ("a",)
    assert notes["short"].concerned == ("c", "d", "e", "f")
    assert notes["empty class"].concerned == ("3 (y)", "4 (z)")
    assert notes["short"].line() == (
        "videos shorter than a clip, whose last frame is repeated (4): c, d, e and 1 more"
    )
    assert notes["two labels"].line() == "videos with more than one label (1): a"


def test_a_plain_list_has_no_notes() -> None:
    records = [VideoRecord("a", 0, 0), VideoRecord("b", 1, 1)]
    assert find_notes(records, 2, {"a": GOOD, "b": None}) == []
    assert find_notes([VideoRecord("a", NO_LABEL, 0)], 400, {"a": GOOD}) == []
