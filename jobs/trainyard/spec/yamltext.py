"""YAML text to values with positions, read the way kubectl reads it.

`kubectl apply` and `trainyard run` must see the same job in the same file. kubectl resolves plain
scalars with the rules of go-yaml v2 (YAML 1.1 with octal, underscores and `2e-5` as a number), which
PyYAML does not share: PyYAML reads `2e-5` as a string, `12:30:00` as a base-60 integer, `0o10` as a
string and `2024-01-01` as a date. So the nodes come from PyYAML, with their marks, and are resolved here.
Source of the rules: https://github.com/kubernetes-sigs/yaml (goyaml.v2/resolve.go).
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000
"""An object above this does not fit etcd's request limit (1.5 MiB) once metadata and status are added."""
MAX_VALUES = 20_000
MAX_DEPTH = 64

_WORDS: dict[str, Any] = {
    **{word: True for low in ("y", "yes", "true", "on") for word in (low, low.capitalize(), low.upper())},
    **{word: False for low in ("n", "no", "false", "off") for word in (low, low.capitalize(), low.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGERS = (
    (re.compile(r"[-+]?0[xX]([0-9a-fA-F]+)\Z"), 16),
    (re.compile(r"[-+]?0[bB]([01]+)\Z"), 2),
    (re.compile(r"[-+]?0[oO]?([0-7]+)\Z"), 8),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)\Z"), 10),
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_MAX_UINT64 = 2**64 - 1
_MAX_DIGITS = 250
"""Of an integer that still fits a float, in any base."""


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what it is and how to mend it."""

    path: Path
    message: str
    line: int = 0
    column: int = 0


@dataclass
class YamlText:
    """A parsed file: its value, where each part stands, and what was wrong with it."""

    value: Any = None
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def position(self, path: Path) -> tuple[int, int]:
        """Line and column (both from 1) of the path, or of the nearest parent that is written down."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, (1, 1))


def resolve(text: str) -> Any:
    """The value of a plain (unquoted) scalar: None, a bool, an int, a float, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    plain = text.replace("_", "")
    for pattern, base in _INTEGERS:
        if match := pattern.match(plain):
            if len(plain) > _MAX_DIGITS:
                return text
            number = int(match[1], base) * (-1 if plain[0] == "-" else 1)
            return number if -(2**63) <= number <= _MAX_UINT64 else float(number)
    if _FLOAT.match(plain):
        real = float(plain)
        return text if math.isinf(real) else real
    return text


def parse(text: str) -> YamlText:
    """The single document of a YAML text.

    Problems (syntax, duplicate keys, more than one document, too large, too deep) are collected in the
    result, never raised, so that a caller can show them beside its own.
    """
    result = YamlText()
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        result.problems.append(Problem((), f"the file is larger than {MAX_BYTES:,} bytes, more than Kubernetes stores"))
        return result
    try:
        nodes = [node for node in _documents(text) if node is not None]
    except RecursionError:
        result.problems.append(Problem((), f"nested deeper than {MAX_DEPTH} levels"))
        return result
    except yaml.YAMLError as error:
        result.problems.append(_syntax_problem(error))
        return result
    if len(nodes) != 1:
        what = "is empty" if not nodes else f"holds {len(nodes)} documents"
        mark = nodes[1].start_mark if nodes else None
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        result.problems.append(Problem((), f"the file {what}; one TrainerJob is expected", line, column))
        return result
    builder = _Builder(result)
    result.value = builder.build(nodes[0], (), 0)
    return result


def dump(value: Any) -> str:
    """YAML that parse() and kubectl read back as the same value; mappings keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes what PyYAML takes for a string and kubectl for a number, such as `2e-5`."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = not text or isinstance(resolve(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _represent_text)


def _documents(text: str) -> Iterator[yaml.Node | None]:
    # The pure Python loader: libyaml's composer recurses in C and can overflow the stack on hostile input.
    return yaml.compose_all(text, Loader=yaml.SafeLoader)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    words = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "\\t" in words:
        words = "a tab where YAML wants spaces"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem((), f"not valid YAML: {words}", line, column)


class _Builder:
    """Turns nodes into values; counts them, so that aliases cannot blow a small file up."""

    def __init__(self, result: YamlText) -> None:
        self.result = result
        self.count = 0

    def problem(self, node: yaml.Node, path: Path, message: str) -> None:
        mark = node.start_mark
        self.result.problems.append(Problem(path, message, mark.line + 1, mark.column + 1))

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            if self.count == MAX_VALUES + 1 or depth == MAX_DEPTH + 1:
                limit = f"{MAX_VALUES:,} values" if self.count > MAX_VALUES else f"{MAX_DEPTH} levels"
                self.problem(node, path, f"more than {limit} once aliases are followed")
                self.count = MAX_VALUES + 1
            return None
        self.result.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index), depth + 1) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" and key_node.value == "<<":
                self._merge(value_node, path, depth, merged)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            child = (*path, key)
            if key in own:
                self.problem(key_node, child, f"written twice (first in line {lines[key]}); keep one")
                continue
            lines[key] = key_node.start_mark.line + 1
            self.result.marks[child] = (lines[key], key_node.start_mark.column + 1)
            own[key] = self.build(value_node, child, depth + 1)
            if self.count > MAX_VALUES:
                break
        return {**merged, **own}

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.problem(node, path, "a key must be a word, not a list or a mapping")
            return None
        value = self._scalar(node, path) if node.style is None else node.value
        if isinstance(value, str):
            return value
        # kubectl turns such keys into strings too; JSON has no other kind. (1 == True in Python: no dictionary.)
        return str(value) if type(value) in (int, float) else json.dumps(value)

    def _merge(self, node: yaml.Node, path: Path, depth: int, merged: dict[str, Any]) -> None:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self.problem(source, path, "`<<` merges mappings only")
                continue
            for key, value in self._mapping(source, path, depth + 1).items():
                merged.setdefault(key, value)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        explicit = not tag.startswith("!") and node.start_mark.buffer is not None and _is_tagged(node)
        if node.tag.startswith("!"):
            self.problem(node, path, f"the tag {node.tag} means nothing here; remove it")
            return None
        if explicit and tag == "str":
            return node.value
        if node.style is None or explicit:
            value = resolve(node.value)
            if isinstance(value, float) and not math.isfinite(value):
                self.problem(node, path, f"{node.value} cannot be stored in JSON, so Kubernetes does not take it")
                return None
            return value
        return node.value


def _is_tagged(node: yaml.ScalarNode) -> bool:
    mark = node.start_mark
    buffer = mark.buffer
    return buffer is not None and buffer[mark.pointer : mark.pointer + 1] == "!"
