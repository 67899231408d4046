"""A manifest file to a TrainerJob: every mistake at once, each with its line, its column and the fix."""

import copy
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainyard.errors import ManifestError, NotFoundError
from trainyard.spec import arguments, podtemplate
from trainyard.spec.model import TrainerJob
from trainyard.spec.patterns import IN_WORDS
from trainyard.spec.secrets import literal_secrets
from trainyard.spec.yamltext import Path, Problem, YamlText, parse, resolve

_MOST_SHOWN = 60


@dataclass(frozen=True)
class Loaded:
    """A job and the file that it came from."""

    job: TrainerJob
    source: str
    text: YamlText

    def error(self, problems: list[Problem]) -> ManifestError:
        """The error that shows the problems with this file's lines."""
        return ManifestError(describe(self.source, problems, self.text))


@dataclass(frozen=True)
class Reading:
    """What could be read of a manifest."""

    job: TrainerJob | None
    """The job without its mistakes; None where too little is left of it."""
    problems: tuple[Problem, ...]
    broken: frozenset[str]
    """The parts of spec that the models refuse, by name: what they say is not what was meant."""


def load(path: str | FilePath, overrides: tuple[str, ...] = ()) -> Loaded:
    """The job of a file.

    `overrides` are `a.b=c` as of `--set`; they count from `spec` unless they begin with spec or metadata.
    Raises ManifestError with all mistakes that need no plan (plan.checks.load has all), or NotFoundError.
    """
    text, reading = read_file(path, overrides)
    return _whole(text, reading, str(path))


def loads(text: str, source: str = "job.yaml", overrides: tuple[str, ...] = ()) -> Loaded:
    """The job of a text. As load()."""
    parsed, reading = read(text, overrides)
    return _whole(parsed, reading, source)


def read_file(path: str | FilePath, overrides: tuple[str, ...] = ()) -> tuple[YamlText, Reading]:
    """The text of a file, and what could be read of it. Raises NotFoundError, or ManifestError for what is no text."""
    file = FilePath(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"{path}: no such file. `trainyard init > job.yaml` writes one to start from") from None
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    return read(text, overrides)


def read(text: str, overrides: tuple[str, ...] = ()) -> tuple[YamlText, Reading]:
    """A parsed text, and what could be read of it."""
    parsed = parse(text)
    if any(problem.path == () for problem in parsed.problems):
        return parsed, Reading(None, tuple(parsed.problems), frozenset())
    found = [*parsed.problems, *_apply(parsed, overrides)]
    reading = _read(parsed.value)
    return parsed, replace(reading, problems=(*found, *reading.problems))


def validate(value: Any) -> tuple[TrainerJob | None, list[Problem]]:
    """The job of a parsed manifest, and every problem found in it; the job is None when there are any."""
    reading = _read(value)
    return (None if reading.problems else reading.job), list(reading.problems)


def _whole(text: YamlText, reading: Reading, source: str) -> Loaded:
    if reading.problems or reading.job is None:
        raise ManifestError(describe(source, list(reading.problems), text))
    return Loaded(reading.job, source, text)


def _read(value: Any) -> Reading:
    if not isinstance(value, dict):
        problem = Problem((), "a manifest is a mapping: apiVersion, kind, metadata, spec")
        return Reading(None, (problem,), frozenset())
    job, problems = _modelled(value)
    broken = frozenset(str(problem.path[1]) for problem in problems if len(problem.path) > 1)
    problems += literal_secrets(value)
    spec = value.get("spec")
    block = spec.get("trainingArguments") if isinstance(spec, dict) else None
    if isinstance(block, dict):
        mistakes = list(arguments.check(block))
        problems += [Problem(("spec", "trainingArguments", *path), message) for path, message in mistakes]
        job = _with_arguments(job, {path[0] for path, _ in mistakes})
    workers = spec.get("workers") if isinstance(spec, dict) else None
    if isinstance(workers, dict):
        overlay = ("spec", "workers", "template")
        mistaken = podtemplate.check(workers.get("template"))
        problems += [Problem((*overlay, *path), message) for path, message in mistaken]
    return Reading(job, tuple(problems), broken)


def _modelled(value: dict[str, Any]) -> tuple[TrainerJob | None, list[Problem]]:
    """The job by the models, and their problems. What they refuse is left out, where they take the rest without it."""
    try:
        return TrainerJob.model_validate(value), []
    except ValidationError as error:
        problems = [_problem(details) for details in error.errors()]
    rest = copy.deepcopy(value)
    for problem in problems:
        _remove(rest, problem.path)
    try:
        return TrainerJob.model_validate(rest), problems
    except ValidationError:
        return None, problems


def _remove(value: Any, path: Path) -> None:
    for key in path[:-1]:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict) and path:
        value.pop(path[-1], None)


def _with_arguments(job: TrainerJob | None, mistaken: set[str]) -> TrainerJob | None:
    """The job with the training arguments that are sound, and YAML's accidents mended in them."""
    if job is None or "training_arguments" not in job.spec.model_fields_set:
        return job
    sound = {name: item for name, item in job.spec.training_arguments.items() if name not in mistaken}
    written = {"training_arguments": arguments.normalised(sound)}
    return job.model_copy(update={"spec": job.spec.model_copy(update=written)})


def as_manifest(job: TrainerJob) -> dict[str, Any]:
    """The manifest of a job: what load() would read again."""
    return job.model_dump(by_alias=True, exclude_unset=True, mode="json")


def describe(source: str, problems: list[Problem], text: YamlText) -> str:
    """The problems in the order of the file, a line each: `job.yaml:14:5 spec.a.b: what and the fix`."""
    rows = []
    for problem in problems:
        line, column = (problem.line, problem.column) if problem.line else text.position(problem.path)
        where = ".".join(str(part) for part in problem.path)
        rows.append((line, column, f"{source}:{line}:{column} {where + ': ' if where else ''}{problem.message}"))
    return "\n".join(dict.fromkeys(row for _, _, row in sorted(rows)))


def _apply(parsed: YamlText, overrides: tuple[str, ...]) -> Iterator[Problem]:
    for override in overrides:
        dotted, equals, raw = override.partition("=")
        keys = dotted.split(".")
        if not equals or not all(keys):
            yield Problem((), f"--set {override}: write it as --set trainingArguments.max_steps=10")
            continue
        keys = keys if keys[0] in ("spec", "metadata") else ["spec", *keys]
        target = parsed.value if isinstance(parsed.value, dict) else {}
        for key in keys[:-1]:
            child = target.setdefault(key, {})
            if not isinstance(child, dict):
                target[key] = child = {}
            target = child
        value = parse(raw) if raw[:1] in "[{\"'" and raw else None
        if value is not None and value.problems:
            yield Problem((), f"--set {override}: {value.problems[0].message}")
            continue
        target[keys[-1]] = resolve(raw) if value is None else value.value


def _problem(details: ErrorDetails) -> Problem:
    path = tuple(details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    given = _Shown(details.get("input"))
    expected = str(context.get("expected"))
    messages = {
        "missing": "missing, and has no default",
        "extra_forbidden": f"unknown field. {_did_you_mean(path)}",
        "string_pattern_mismatch": f"{given!r} is not {_in_words(context.get('pattern'))}",
        "string_type": f"{given!r} is not a text; put it in quotes",
        "int_type": f"{given!r} is not a whole number",
        "float_type": f"{given!r} is not a number",
        "bool_type": f"{given!r} is neither true nor false",
        "dict_type": f"{given!r} is not a mapping (key: value)",
        "model_type": f"{given!r} is not a mapping (key: value)",
        "model_attributes_type": f"{given!r} is not a mapping (key: value)",
        "literal_error": f"{given!r} is none of {expected}. {_near(given, expected)}",
        "enum": f"{given!r} is none of {expected}",
        "value_error": str(context.get("error", "")),
    }
    message = messages.get(kind, details["msg"] + ("" if given.value is None else f" (found {given!r})"))
    return Problem(path, message.strip())


def _in_words(pattern: object) -> str:
    return IN_WORDS.get(str(pattern), f"of the form {pattern}")


@dataclass(frozen=True)
class _Shown:
    """A value as a message may show it: short, and never what is inside a list or a mapping, which may be secret."""

    value: Any

    def __repr__(self) -> str:
        if isinstance(self.value, dict | list):
            return "a mapping" if isinstance(self.value, dict) else "a list"
        text = repr(self.value)
        return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _near(given: _Shown, expected: str) -> str:
    words = re.findall(r"'([^']+)'", expected)
    near = difflib.get_close_matches(str(given.value), words, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""


def _did_you_mean(path: Path) -> str:
    model: type[BaseModel] = TrainerJob
    for part in path[:-1]:
        found = next((f.annotation for f in model.model_fields.values() if f.alias == part), None)
        candidates = [kind for kind in (found, *getattr(found, "__args__", ())) if isinstance(kind, type)]
        model = next((kind for kind in candidates if issubclass(kind, BaseModel)), model)
    names = [field.alias or name for name, field in model.model_fields.items()]
    word = str(path[-1])
    snake_to_camel = "".join(piece.capitalize() if index else piece for index, piece in enumerate(word.split("_")))
    near = difflib.get_close_matches(snake_to_camel, names, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(names)}."
