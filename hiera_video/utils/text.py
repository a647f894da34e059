"""Make text from outside, such as names of files and classes, safe for terminals and logs."""

import unicodedata

# Control characters, surrogates, separators of lines and paragraphs.
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}
# Characters that change the direction of text, so that one name can look like another; and the
# byte order mark, which is invisible.
_TURNING = set("\ufeff\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape what a terminal would interpret or cannot show: `\x1b`, `\udcff`, `\n`.

    Escapes are Python's. Letters of any script, emoji, spaces and the characters in `keep` are
    unchanged.
    """
    if text.isascii() and text.isprintable():
        return text
    unsafe = {
        one
        for one in set(text).difference(keep)
        if one in _TURNING or unicodedata.category(one) in _ESCAPED
    }
    escapes = {ord(one): one.encode("unicode_escape").decode() for one in unsafe}
    return text.translate(escapes)
