"""YAML is read as kubectl reads it; kubectl itself is the oracle."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN
from trainyard.spec.yamltext import MAX_VALUES, dump, parse

SCALARS = [
    "2e-5", "2.e-5", "2E-5", "2.0e-05", "1e5", "1e+5", "1E3", ".5", "5.", "+.5", "+1", "-1", "-0", "0", "08", "1e400",
    "12:30:00", "190:20:30", "2024-01-01", "2001-12-14t21:59:43.10-05:00", "0o10", "010", "0x1F", "0b11", "-0o10", "0o8",
    "1_000", "1_000.5", "1__0", "_1", "0x_1", "9223372036854775807", "on", "off", "yes", "no", "y", "n", "Y", "N", "True",
    "TRUE", "tRue", "~", "null", "Null", "None", "'2e-5'", '"on"', "!!str 5", "!!int '7'", "<<", "=", "1.2.3", "v1", "16Gi",
    "no ", "nan", "0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def kubectls(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    file = tmp_path_factory.mktemp("kubectl") / "object.yaml"
    rows = "\n".join(f"  - {scalar}" for scalar in SCALARS)
    file.write_text(
        f"apiVersion: trainyard.dev/v1alpha1\nkind: TrainerJob\nmetadata: {{name: a}}\nspec:\n  values:\n{rows}\n"
    )
    command = [str(BIN / "kubectl"), "annotate", "--local", "-f", str(file), "a=b", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values: list[object] = json.loads(done.stdout)["spec"]["values"]
    return values


@pytest.mark.parametrize("index", range(len(SCALARS)), ids=SCALARS)
def test_a_scalar_is_what_kubectl_makes_of_it(kubectls: list[object], index: int) -> None:
    parsed = parse(f"value: {SCALARS[index]}")
    assert parsed.problems == []
    ours, theirs = parsed.value["value"], kubectls[index]
    assert ours == theirs
    assert isinstance(ours, bool) == isinstance(theirs, bool)


def test_merge_keys_and_aliases_are_followed() -> None:
    parsed = parse("base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\nagain: *base\n")
    assert parsed.value["use"] == {"a": 1, "b": 3}
    assert parsed.value["again"] == {"a": 1, "b": 2}


def test_positions_are_those_of_the_key() -> None:
    parsed = parse("a:\n  b:\n    - c: 1\n")
    assert parsed.position(("a", "b", 0, "c")) == (3, 7)
    assert parsed.position(("a", "b", 0, "missing")) == (3, 7), "the nearest parent that is written down"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "written twice (first in line 1)", 3),
        ("a: 1\n---\nb: 2\n", "holds 2 documents", 3),
        ("", "is empty", 1),
        ("a: [1, 2\n", "not valid YAML", 2),
        ("a:\n\t- b\n", "not valid YAML", 2),
        ("a: .inf\n", "cannot be stored in JSON", 1),
        ("a: !custom x\n", "means nothing here", 1),
        ("? [a, b]\n: 1\n", "a key must be a word", 1),
        ("a: *nothing\n", "not valid YAML", 1),
    ],
    ids=["duplicate", "documents", "empty", "syntax", "tab", "infinity", "tag", "key", "alias"],
)
def test_a_broken_text_is_a_problem_with_its_line(text: str, message: str, line: int) -> None:
    (problem,) = parse(text).problems
    assert message in problem.message
    assert problem.line == line


def test_an_alias_bomb_is_refused() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    (problem,) = parse(text).problems
    assert f"{MAX_VALUES:,} values" in problem.message


@pytest.mark.parametrize(
    "text", ["a: " + "x" * 1_100_000, "[" * 5000, "{a: " * 3000], ids=["size", "lists", "mappings"]
)
def test_a_hostile_size_or_depth_is_refused(text: str) -> None:
    assert parse(text).problems


def test_a_cycle_is_refused() -> None:
    assert parse("a: &a [*a]\n").problems


def test_the_golden_table_needs_kubectl() -> None:
    assert Path(BIN / "kubectl").exists()


@pytest.mark.parametrize("text", ["2e-5", "0o10", "on", "1_000", "12:30:00", "", "null", "plain", "a: b", "1.0"])
def test_a_text_that_looks_like_something_else_is_written_in_quotes(text: str) -> None:
    assert parse(dump({"value": text})).value == {"value": text}


def test_keys_that_are_numbers_stay_numbers() -> None:
    assert parse("{0: neg, 1: pos, true: yes, null: none}").value == {
        "0": "neg",
        "1": "pos",
        "true": True,
        "null": "none",
    }


@pytest.mark.parametrize("digits", ["1" * 400, "1" * 5000, "0x" + "f" * 400], ids=["float", "int", "hex"])
def test_an_endless_number_is_a_text(digits: str) -> None:
    assert parse(f"value: {digits}").value == {"value": digits}
