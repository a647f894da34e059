"""Names in a config are files and public functions; this finds them, or says what is there."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from hiera_video.utils.errors import UserError


def closest(name: str, options: Iterable[str]) -> str:
    """Return `" Did you mean X?"` for the option nearest to `name`, or `""` if none is near."""
    options = list(options)
    by_folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]}?" if near else ""


def find_module(
    package: str, name: str, *, key: str, exclude: Iterable[str] = ("build",)
) -> ModuleType:
    """Import the module `name` of `package`; a name that is no module there is a UserError.

    Modules that begin with "_" and those in `exclude` do not count. `key` is the config key the
    name came from, for the message. Errors raised while importing a module that does exist are
    passed on: they are bugs, or missing dependencies, not typing errors.
    """
    parent = importlib.import_module(package)
    neighbours = sorted(
        module.name
        for module in pkgutil.iter_modules(parent.__path__)
        if not module.name.startswith("_") and module.name not in exclude
    )
    if name not in neighbours:
        raise UserError(
            f"{key} must be a module of {package} ({', '.join(neighbours)}), got {name!r}."
            + closest(name, neighbours)
        )
    return importlib.import_module(f"{package}.{name}")


def public_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the public functions that `module` itself defines, by name."""
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def find_function(module: ModuleType, name: str, *, key: str) -> Callable[..., Any]:
    """Return the public function `name` that `module` defines, or raise a UserError listing them.

    `key` is the config key the name came from, for the message.
    """
    functions = public_functions(module)
    if name not in functions:
        raise UserError(
            f"{key} must be a function of {module.__name__} ({', '.join(sorted(functions))}), "
            f"got {name!r}." + closest(name, functions)
        )
    return functions[name]
