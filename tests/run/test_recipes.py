"""Every recipe runs. Those that the cluster trains too are run, whole, by tests/cluster/test_jobs.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli
from trainyard.spec.manifest import load

RECIPES = ROOT / "jobs/recipes"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, shared_data: Path) -> None:
    """The recipes' data/, in the test's folder."""
    (tmp_path / "data").symlink_to(shared_data)


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes") / "data"
    subprocess.run([sys.executable, str(RECIPES / "data.py"), str(folder)], check=True)
    return folder


SHORT = {"tiny-lm": "20", "bbc-names": "12"}
WHOLE = {"bbc-minilm", "bbc-minilm-zero2"}


@pytest.mark.parametrize("recipe", SHORT)
def test_a_recipe_runs(cli: Cli, tmp_path: Path, recipe: str) -> None:
    done = cli(
        "run", str(RECIPES / f"{recipe}.yaml"), "--set", f"trainingArguments.max_steps={SHORT[recipe]}", "-o", "json"
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "ERROR" in line or "WARNING" in line] == []
    told = json.loads(done.stdout)
    assert told["metrics"]["eval_loss"] > 0
    assert Path(told["final"], "model.safetensors").exists()


def test_every_recipe_is_run_by_a_test() -> None:
    assert {file.stem for file in RECIPES.glob("*.yaml")} == {*SHORT, *WHOLE}
    assert all(load(file).job.name == file.stem for file in RECIPES.glob("*.yaml"))
