"""Count the sentences of Markdown pages and their words: `python tests/prose.py [PAGES...]`.

Ignores code blocks, headings, HTML tags, images and link targets. Inline code counts as one word.
A paragraph, a list item and a table cell each end a sentence.
"""

import argparse
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

CODE = r"(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)"
MARKUP = (  # front matter, code blocks, images, tags, links: text and inline code are kept
    r"\A---\n.*?^---$",
    r"^[ >]*(?P<fence>```+|~~~+).*?^[ >]*(?P=fence)[ ]*$",
    r"!\[[^\]]*\]\([^)]*\)",
    rf"(?P<code>{CODE})|<!--.*?-->|</?[a-zA-Z][^>]*>",
    rf"(?P<code>{CODE})|\[(?P<text>(?:`[^`]*`|[^\[\]`])*)\]\([^)]*\)",
)
NO_PROSE = re.compile(r"\s*(#+\s|!!!|\?\?\?|\[[^\]]+\]:|([-=*_]\s*){3,}$|\|[\s:|-]*$)")
LIST_ITEM = re.compile(r"^\s*([-*+]|\d+[.)])\s+")
ABBREVIATION = r"(?<!\be\.g)(?<!\bi\.e)(?<!\bet al)(?<!\bvs)(?<!\bcf)(?<!\betc(?=\. [a-z]))"
SENTENCE_END = re.compile(ABBREVIATION + r"[.!?]+[\"')\]*_]*(\s+|$)")


def sentences(markdown: str) -> list[tuple[int, str]]:
    """Return the first line and the text of each sentence of a page."""
    found = []
    for number, block in text_blocks(without_markup(markdown)):
        ends = [match.end() for match in SENTENCE_END.finditer(masked(block))]
        for start, end in pairwise([0, *ends, len(block)]):
            if text := " ".join(block[start:end].split()):
                found.append((number + block[:start].count("\n"), text))
    return found


def count_words(sentence: str) -> int:
    """Return the number of words of a sentence."""
    return sum(bool(re.search(r"\w", word)) for word in masked(sentence).split())


def without_markup(text: str) -> str:
    """Remove code blocks, tags, images and link targets; every line keeps its number."""
    for pattern in MARKUP:
        text = re.sub(pattern, kept_text, text, flags=re.DOTALL | re.MULTILINE)
    return text


def kept_text(match: re.Match[str]) -> str:
    """Return what remains of a piece of markup: code, a link's text, and the line breaks."""
    kept = match.groupdict().get("code") or match.groupdict().get("text") or ""
    return kept + "\n" * (match[0].count("\n") - kept.count("\n"))


def text_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of each paragraph, list item and table cell."""
    first, block = 0, ""
    for number, line in enumerate(re.sub(r"^ *> ?", "", f"{text}\n", flags=re.M).split("\n"), 1):
        is_row, is_prose = line.lstrip().startswith("|"), not NO_PROSE.match(line)
        if block and (is_row or not is_prose or not line.strip() or LIST_ITEM.match(line)):
            yield first, block
            block = ""
        if is_row and is_prose:
            yield from ((number, cell) for cell in table_cells(line))
        elif is_prose and line.strip():
            first, block = (first if block else number), block + LIST_ITEM.sub("", line) + "\n"


def table_cells(row: str) -> list[str]:
    """Return the cells of a table's row that are longer than a name of three words."""
    bars = (match.start() for match in re.finditer(r"(?<!\\)\|", masked(row)))
    cells = (row[start + 1 : end] for start, end in pairwise(bars))
    return [cell for cell in cells if len(re.findall(r"\b[A-Za-z]\w+", masked(cell))) > 3]


def masked(text: str) -> str:
    """Replace inline code by one word of the same length."""
    return re.sub(CODE, lambda match: re.sub(r"[^\n]", "X", match[0]), text, flags=re.DOTALL)


def main() -> None:
    """Print a row a page, then the longest sentences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="default: README.md and docs/*.md")
    parser.add_argument("--longest", type=int, default=0, metavar="N", help="print N sentences")
    arguments = parser.parse_args()
    pages = arguments.pages or [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    found = {str(page): sentences(page.read_text(encoding="utf-8")) for page in pages}
    rows = [(count_words(text), page, line, text) for page in found for line, text in found[page]]
    print(f"{'page':<24} sentences  average  longest")
    for page in (*found, "total"):
        n = [count for count, name, _, _ in rows if page in (name, "total")] or [0]
        print(f"{page:<24} {len(n):9} {sum(n) / len(n):8.1f} {max(n):8}")
    for count, page, line, text in sorted(rows, reverse=True)[: arguments.longest]:
        print(f"{page}:{line}: {count} words: {text}")


if __name__ == "__main__":
    main()
