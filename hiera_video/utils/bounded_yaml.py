"""Compose untrusted YAML into nodes within bounds.

A few lines of aliases to aliases stand for more values than any memory holds. Composing them is
cheap, since an alias is the same node again; walking, merging or printing them is not.
"""

import yaml

_MAX_CHARACTERS = 1 << 18  # a full config has 2 % of that
_MAX_NODES = 20_000


class TooLargeError(yaml.YAMLError):
    """The text is longer than any config, or stands for more values."""


def compose(text: str) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """Return a loader for `text` and its root node, None if it is empty.

    Raises:
        TooLargeError: the text, or what it stands for with each alias written out, is too large.
        yaml.YAMLError: it is no YAML.
        RecursionError: it is nested too deep.
    """
    if len(text) > _MAX_CHARACTERS:
        raise TooLargeError(f"{len(text)} characters, and no config has more than a few thousand")
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    if root is not None and _written_out(root, {}) > _MAX_NODES:
        raise TooLargeError(f"more than {_MAX_NODES} values once its aliases are written out")
    return loader, root


def _written_out(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Return the number of nodes of `node` with aliases expanded, except aliases to itself."""
    if node not in sizes:
        sizes[node] = 0
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = (inner for child in children for inner in _pair(child))
        sizes[node] = 1 + sum(_written_out(inner, sizes) for inner in flat)
    return sizes[node]


def _pair(child: object) -> tuple[yaml.Node, ...]:
    return child if isinstance(child, tuple) else (child,)  # of a mapping or of a sequence
