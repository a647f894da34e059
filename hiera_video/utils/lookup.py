"""Find the modules and public functions that a config names, or list those that exist."""

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from hiera_video.utils.errors import UserError


def closest(name: str, options: Iterable[str]) -> str:
    """Return `" Did you mean X?"` for the option nearest to `name`, or `""` if none is near."""
    options = list(options)
    by_folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]}?" if near else ""


def module_names(folder: str, *, taking: Sequence[str] = ()) -> list[str]:
    """List the modules in a folder of the package, without importing them.

    Skips `build` and names that begin with "_". With `taking`, also skips modules without a public
    function that can be called with these keywords, such as helper files beside model families.
    """
    names = [m.name for m in pkgutil.iter_modules([folder]) if not m.name.startswith("_")]
    return sorted(
        name
        for name in names
        if name != "build" and (not taking or _has_function(os.path.join(folder, name), taking))
    )


def find_module(package: str, name: str, *, key: str, taking: Sequence[str] = ()) -> ModuleType:
    """Import the module `name` of `package`. Raises UserError if there is no such module.

    `module_names` says which modules count; `key` is the config key of the name, for the message.
    Exceptions from importing an existing module are not caught: they are bugs or missing
    dependencies, not misspelt names.
    """
    (folder,) = importlib.import_module(package).__path__
    neighbours = module_names(folder, taking=taking)
    if name not in neighbours:
        raise UserError(
            f"{key} must be a module of {package} ({', '.join(neighbours)}), got {name!r}."
            + closest(name, neighbours)
        )
    return importlib.import_module(f"{package}.{name}")


def _has_function(module: str, keywords: Sequence[str]) -> bool:
    """Return whether a module or package, given by its path without .py, has such a function."""
    path = f"{module}.py" if os.path.isfile(f"{module}.py") else os.path.join(module, "__init__.py")
    try:
        return _defines(path, os.stat(path).st_mtime_ns, tuple(keywords))
    except (OSError, ValueError, SyntaxError):  # not a package, or no source that can be imported
        return False


@cache
def _defines(path: str, written: int, keywords: tuple[str, ...]) -> bool:
    """Parse a source file once for each time that it was `written`."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    return any(
        isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and _takes(node.args, keywords)
        for node in tree.body
    )


def _takes(arguments: ast.arguments, keywords: Sequence[str]) -> bool:
    """Return whether a function takes each keyword by name, or takes only `**keywords`.

    `load_model(name, **settings)` thus does not take `input_size`, but `base(**settings)` does.
    """
    positional = [*arguments.posonlyargs, *arguments.args]
    if arguments.kwarg and not positional and not arguments.vararg:
        return True
    named = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}
    return named.issuperset(keywords)


def public_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the public functions that `module` itself defines, by name."""
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def find_function(module: ModuleType, name: str, *, key: str) -> Callable[..., Any]:
    """Return the public function `name` that `module` defines, or raise a UserError listing all.

    `key` is the config key that holds the name, for the message.
    """
    functions = public_functions(module)
    if name not in functions:
        raise UserError(
            f"{key} must be a function of {module.__name__} ({', '.join(sorted(functions))}), "
            f"got {name!r}." + closest(name, functions)
        )
    return functions[name]
