"""Compose untrusted YAML into nodes within bounds.

A few lines of aliases to aliases can expand to more values than fit in memory. Composing them is
cheap, because an alias is a reference to its node. Walking, merging or printing them is not.
"""

import yaml

_MAX_CHARACTERS = 1 << 18  # a full config has 2 % of that
_MAX_NODES = 20_000


class TooLargeError(yaml.YAMLError):
    """The text is longer than any config, or expands to more values."""


def compose(text: str) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """Return a loader for `text` and its root node, None if it is empty.

    Raises:
        TooLargeError: the text, or its content with all aliases expanded, is too large.
        yaml.YAMLError: the text is not valid YAML.
        RecursionError: the text is nested too deep.
    """
    if len(text) > _MAX_CHARACTERS:
        raise TooLargeError(f"{len(text)} characters, and no config has more than a few thousand")
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    if root is not None and _expanded_size(root, {}) > _MAX_NODES:
        raise TooLargeError(f"more than {_MAX_NODES} values once its aliases are expanded")
    return loader, root


def _expanded_size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Return the number of nodes of `node` with aliases expanded, except aliases to itself."""
    if node not in sizes:
        sizes[node] = 0
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):  # its children are pairs of key and value
            children = [inner for pair in children for inner in pair]
        sizes[node] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[node]
