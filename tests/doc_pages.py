"""README and docs/ as the tests of them read them: code blocks, commands, spans and links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
# What a shell puts between commands, and words that stand before one.
_ENDS = {"&&", "||", ";", "|", "&", "\n", "(", ")"}
_REDIRECTIONS = {">", ">>", "<", ">&", "&>"}
_LEADING = {"do", "then", "else", "time", "!", "{"}
_NO_COMMAND = {"done", "fi", "for", "if", "while", "}", "esac"}
_ASSIGNMENT = re.compile(r"^([A-Za-z_]\w*)=(.*)$")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")


@dataclass(frozen=True)
class Command:
    """A command of a page, as the words of its command line, variables filled in."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def name_of(page: Path) -> str:
    """Return the path of a page below the project's folder."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Return the text of a page's code blocks in a language."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """Return the `code` within a page's prose, each on one line."""
    return [" ".join(text.split()) for text in _SPAN.findall(prose(page))]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return _LINK.findall(_SPAN.sub("", prose(page)))


def commands(page: Path) -> list[Command]:
    """Return the commands of a page: those of its bash blocks, and those within its prose."""
    name = name_of(page)
    texts = blocks(page, "bash")
    in_prose = re.compile(r"([A-Z_]+=\S+ )*(python [\w/]+\.py|torchrun|make|pip install|pytest) ")
    texts += [text for text in spans(page) if in_prose.match(text)]
    return [Command(name, words) for text in texts for words in split_shell(text)]


def split_shell(text: str) -> list[tuple[str, ...]]:
    """Split a script into the words of each command, without assignments and redirections.

    Of a loop, the first round; a variable that was given no value stays as it is.
    """
    found: list[tuple[str, ...]] = []
    values: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for words in _commands_of_line(line):
            while words and (words[0] in _LEADING or _ASSIGNMENT.match(words[0])):
                if given := _ASSIGNMENT.match(words[0]):
                    values[given[1]] = given[2]
                words.pop(0)
            if words[:1] == ["for"]:
                values[words[1]] = words[3]
            if words and words[0] not in _NO_COMMAND:
                filled = (_VARIABLE.sub(lambda m: values.get(m[1], m[0]), word) for word in words)
                found.append(tuple(filled))
    return found


def _commands_of_line(line: str) -> list[list[str]]:
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    found: list[list[str]] = [[]]
    to_a_file = False
    for word in reader:
        if word in _ENDS:
            found.append([])
        elif word in _REDIRECTIONS:
            to_a_file = True
        elif to_a_file:
            to_a_file = False
        else:
            found[-1].append(word)
    return [words for words in found if words]
