"""Text from outside, names of files and classes say, for a terminal, a log or a message."""

import unicodedata

# Control characters, halves of surrogate pairs, separators of lines and paragraphs.
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}
# Those that turn the direction of what follows, and so can make one name look like another; and the
# byte order mark, which is not to be seen.
_TURNING = set("\ufeff\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape what a terminal would obey or cannot show, as Python does: `\x1b`, `\udcff`, `\n`.

    Letters of any script, emoji and spaces stay. The characters in `keep` stay too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(one) if one not in keep and _is_escaped(one) else one for one in text)


def _is_escaped(one: str) -> bool:
    return one in _TURNING or unicodedata.category(one) in _ESCAPED


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode()
