"""What people read who have installed the base alone: in a real environment without the optional parts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT, manifest
from trainyard import extras
from trainyard.spec.yamltext import dump


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that holds `pip install trainyard`, with the versions of requirements.lock."""
    uv = BIN / "uv"
    if not uv.exists():
        pytest.skip("needs uv, which `make env` installs")
    folder = tmp_path_factory.mktemp("base")
    source = folder / "source"  # uv builds in the folder it is given
    shutil.copytree(ROOT / "jobs/trainyard", source / "jobs/trainyard")
    shutil.copytree(ROOT / "operator/trainyard_operator", source / "operator/trainyard_operator")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    environment = folder / "environment"
    subprocess.run([uv, "venv", "--quiet", "--python", BIN / "python", environment], check=True)
    python, lock = environment / "bin/python", ROOT / "requirements.lock"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--constraint", lock, source], check=True)
    return environment / "bin"


def ask(command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "data.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "bert"}')
    spec = {"model": {"source": f"{tmp_path}/model"}, "data": {"train": {"source": f"{tmp_path}/data.jsonl"}}}
    (tmp_path / "job.yaml").write_text(dump(manifest(**spec, storage={"uri": f"{tmp_path}/runs"})))
    return str(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run", "{job}"], "training here"),
        (["predict", "model", "text"], "using a model"),
        (["eval", "model", "--file", "{job}"], "measuring a model"),
        (["ckpt", "pull", "{job}", "--as-trainer"], "--as-trainer"),
        (["agent"], "the agent of a pod"),
    ],
    ids=["run", "predict", "eval", "ckpt pull", "agent"],
)
def test_training_without_its_part_says_what_to_install(base: Path, job: str, arguments: list[str], what: str) -> None:
    done = ask(base / "trainyard", *(argument.format(job=job) for argument in arguments))
    assert done.stderr == f'error: {what} needs trainyard[train]: pip install "trainyard[train]"\n'
    assert done.returncode == 2
    assert done.stdout == ""


def test_operator_without_its_part_says_what_to_install(base: Path) -> None:
    done = ask(base / "trainyard-operator")
    assert done.stderr == 'error: the operator needs trainyard[operator]: pip install "trainyard[operator]"\n'
    assert done.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [["validate", "{job}"], ["plan", "{job}"], ["init", "text-classification"], ["schema"], ["explain", "spec"], ["version"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_verbs_that_only_describe_need_the_base_alone(base: Path, job: str, arguments: list[str]) -> None:
    done = ask(base / "trainyard", *(argument.format(job=job) for argument in arguments))
    assert done.stderr == ""
    assert done.returncode == 0


def test_module_of_no_verb_names_its_part(base: Path) -> None:
    code = """
import click
from trainyard.cli import main
@main.trainyard.command()
def broken():
    import psutil
main._Verbs.get_command = lambda *_: broken
main.main()
"""
    done = ask(base / "python", "-c", code, "broken")
    assert done.stderr.startswith("error: this needs psutil, which comes with trainyard[train]")
    assert done.returncode == 2


def test_nothing_is_missing_here() -> None:
    assert (extras.missing("train"), extras.missing("operator")) == ([], [])
    assert extras.explain(ModuleNotFoundError("No module named 'x'", name="x")) is None
