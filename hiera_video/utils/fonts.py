"""Find an installed font for a text: class names may be in any script, a font covers a few."""

import os
from functools import cache

_USUAL = "DejaVuSans.ttf"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more


@cache
def usual_font() -> str:
    """Return the file of DejaVu Sans, the font that is used if it covers the text."""
    import matplotlib  # import late: most runs write no text into a picture

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", _USUAL)


def font_file(text: str) -> str | None:
    """Return the file of a font with every letter of `text`, None if no installed font has all."""
    return _font_with(frozenset(text))


@cache
def _font_with(letters: frozenset[str]) -> str | None:
    from matplotlib.font_manager import fontManager

    codes = {ord(letter) for letter in letters}
    if codes <= _letters_of(usual_font()):
        return usual_font()
    plain = (
        font.fname
        for font in fontManager.ttflist
        # Skip Last Resort, which shows a box for every letter.
        if (font.style, font.weight) == ("normal", 400) and "Last Resort" not in font.name
    )
    return next((file for file in sorted(plain) if codes <= _letters_of(file)), None)


@cache
def _letters_of(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):  # removed meanwhile, or not readable by FreeType
        return frozenset()
