"""The optional parts of the distribution: `pip install trainyard` alone has none of them.

What belongs to a part is read from the distribution's own metadata, which is made of pyproject.toml: there is no second
list to keep.
"""

import functools
import re
from importlib.metadata import PackageNotFoundError, distribution, requires

from trainyard.errors import MissingExtraError

_TRAIN = "train"
_OPERATOR = "operator"
"""The part of the operator, which has a command of its own: no verb needs it."""
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)[^;]*;\s*extra == [\"']([a-z0-9-]+)[\"']\s*$")
"""A requirement of a part, wherever it is installed: one with another condition may rightly be absent."""


def need(extra: str, what: str) -> None:
    """Return when an optional part is installed. Raises MissingExtraError with what needs it and how to install it."""
    if missing(extra):
        raise MissingExtraError(f'{what} needs trainyard[{extra}]: pip install "trainyard[{extra}]"')


def missing(extra: str) -> list[str]:
    """The distributions of a part that are not installed, in the order of pyproject.toml."""
    return [name for name in _distributions().get(extra, ()) if not _is_installed(name)]


def explain(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The error to show for a module that a verb misses; None when every part is installed that a verb may need.

    A part brings more modules than its distributions are called after. So the part that has one of the module's name
    is meant if there is one, else the part that all training needs.
    """
    module = (error.name or "").partition(".")[0]
    incomplete = {extra: missing(extra) for extra in _distributions() if extra != _OPERATOR and missing(extra)}
    if not incomplete or module.startswith("trainyard"):
        return None
    named = [extra for extra, names in incomplete.items() if module in names]
    first = _TRAIN if _TRAIN in incomplete else next(iter(incomplete))
    part = f"trainyard[{named[0] if named else first}]"
    return MissingExtraError(f'this needs {module}, which comes with {part}: pip install "{part}"')


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """The distributions of each part, by the part's name; none where the package is importable but not installed."""
    parts: dict[str, list[str]] = {}
    try:
        requirements = requires("trainyard") or []
    except PackageNotFoundError:
        return parts
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is not None:
            parts.setdefault(match[2], []).append(match[1])
    return parts


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
