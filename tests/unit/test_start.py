"""What starts fast stays fast, and what must never exist does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trainyard.cli.main import VERBS
from trainyard.spec.fields import entries

HEAVY = {"torch", "ray", "transformers", "datasets", "accelerate", "deepspeed"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["validate", "jobs/recipes/bbc-minilm.yaml"], ["plan", "jobs/recipes/bbc-minilm.yaml"], ["explain", "workers"], ["schema"], ["init"], ["run", "--help"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_light_verb_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom trainyard.cli.main import main\nsys.argv = ['trainyard', *sys.argv[1:]]\n"
        "try:\n main()\nexcept SystemExit as end:\n assert not end.code, end.code\n"
        f"found = {HEAVY!r} & set(sys.modules)\nassert not found, found\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_package_shadows_the_standard_librarys_operator() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "operator.py").exists()


def test_every_field_has_words() -> None:
    assert [".".join(entry.path) for entry in entries() if len(entry.help) < 10] == []


def test_every_verb_has_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainyard.cli.main", "--help"], capture_output=True, text=True, check=True
    )
    assert all(verb in done.stdout for verb in VERBS)


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = str(Path.home())
    found = [
        name for name in listed if (ROOT / name).is_file() and f"{home}/" in (ROOT / name).read_text(errors="ignore")
    ]
    assert found == []
