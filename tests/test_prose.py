"""The counter of sentences and words, on a small page."""

import subprocess
import sys
from pathlib import Path

from .doc_pages import PAGES
from .prose import count_words, sentences

PAGE = """\
---
title: No sentence. At all.
---
# A heading. It is no sentence

The first sentence spans
two lines. It uses version 2.13.0 of [a `linked` word](https://example.org/a.b), e.g.
`a b. c.`, as in Ryali et al. 2023. **Bold ends.** Is this one? (Yes!)

![A picture. Of nothing.](picture.png)

```bash
echo "Not prose. Not at all."
```

- An item without a full stop
- Another item. With two sentences <br> and a tag, <!-- a comment. -->
  on two lines.

  ~~~
  A block. In a list.
  ~~~

1. A numbered item, etc. and more.

| Name | What it does to a video |
|---|---|
| 3.5 | `a | b` |
| one two three | It decodes the video. Then it crops it. |

!!! warning "A title. Of a box"
    The text of the box.

> A quote of
> two lines
"""
EXPECTED = [
    (6, "The first sentence spans two lines."),
    (7, "It uses version 2.13.0 of a `linked` word, e.g. `a b. c.`, as in Ryali et al. 2023."),
    (8, "**Bold ends.**"),
    (8, "Is this one?"),
    (8, "(Yes!)"),
    (16, "An item without a full stop"),
    (17, "Another item."),
    (17, "With two sentences and a tag, on two lines."),
    (24, "A numbered item, etc. and more."),
    (26, "What it does to a video"),
    (29, "It decodes the video."),
    (29, "Then it crops it."),
    (32, "The text of the box."),
    (34, "A quote of two lines"),
]


def test_sentences_of_a_page():
    assert sentences(PAGE) == EXPECTED


def test_a_code_span_is_one_word():
    assert count_words("Run `python tests/prose.py --longest 3` + 2 times - now.") == 5


def test_the_command_prints_a_row_a_page_and_the_longest(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("One two three. Four.\n\nA b c d e.\n")
    script = Path(__file__).with_name("prose.py")
    words = [sys.executable, str(script), "page.md", "--longest", "1"]
    printed = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
    rows = [line.split() for line in printed.stdout.splitlines()]
    assert rows[1] == ["page.md", "3", "3.0", "5"]
    assert rows[2] == ["total", "3", "3.0", "5"]
    assert printed.stdout.splitlines()[3] == "page.md:3: 5 words: A b c d e."


def test_pages_are_written_in_short_sentences():
    """At most 18 words a sentence on average over README and docs, and 40 in the longest."""
    counts = {
        f"{page.name}:{line}": count_words(sentence)
        for page in PAGES
        for line, sentence in sentences(page.read_text())
    }
    assert sum(counts.values()) / len(counts) <= 18
    assert {place: words for place, words in counts.items() if words > 40} == {}
