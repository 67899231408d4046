"""Every recipe runs; the demo reaches its accuracy, with its storage on S3, and its model is used by others."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from tests.bed.s3 import S3Server
from tests.conftest import ROOT
from trainyard.spec.manifest import load

RECIPES = ROOT / "jobs/recipes"
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, shared_data: Path) -> None:
    """The recipes' data/, in the test's folder."""
    (tmp_path / "data").symlink_to(shared_data)


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes") / "data"
    subprocess.run([sys.executable, str(RECIPES / "data.py"), str(folder)], check=True)
    return folder


def test_the_demo_on_s3_reaches_its_accuracy_and_its_model_works_elsewhere(
    cli: Cli, tmp_path: Path, s3: S3Server
) -> None:
    recipe = str(RECIPES / "bbc-minilm.yaml")
    where = ("--set", "storage.uri=s3://demo/runs", "--set", f"storage.endpoint={s3.endpoint}")
    env = {**s3.environment, "TRAINYARD_CACHE": str(tmp_path / "cache")}
    done = cli("run", recipe, *where, env=env)
    assert done.returncode == 0, done.stderr
    assert "model:  s3://demo/runs/bbc-minilm/final" in done.stdout
    assert "samples/s" in done.stderr
    assert "ETA" in done.stderr
    assert not (tmp_path / "runs").exists()

    uri = "s3://demo/runs/bbc-minilm/final"
    told = cli("predict", uri, "The striker scored twice as United won the cup final", "-o", "json", env=env)
    assert json.loads(told.stdout)[0]["output"][0]["label"] == "sports", told.stderr
    final = tmp_path / "final"
    fetch(s3, "demo", "runs/bbc-minilm/final/", final)
    metrics = json.loads((final / "manifest.json").read_text())["metrics"]
    assert metrics["eval_accuracy"] >= 0.95
    code = (
        "import sys; sys.modules['trainyard'] = None\nfrom transformers import pipeline\n"
        f"print(pipeline('text-classification', {str(final)!r})('Shares fell after the bank cut its profit forecast')[0]['label'])"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert plain.stdout.split()[-1] == "business"
    measured = cli("eval", str(final), "-f", recipe, "-o", "json")
    assert json.loads(measured.stdout)["eval_accuracy"] == pytest.approx(metrics["eval_accuracy"], abs=1e-3)
    listed = cli("ckpt", "ls", "s3://demo/runs/bbc-minilm", "-o", "json", env=env)
    assert {row["state"] for row in json.loads(listed.stdout)} == {"Committed"}, listed.stderr
    again = cli("run", recipe, *where, env=env)
    assert "already complete" in again.stderr


def fetch(s3: S3Server, bucket: str, prefix: str, folder: Path) -> None:
    """Download everything below a prefix with a plain client."""
    store = s3.store(bucket)
    for page in obstore.list(store, prefix):
        for each in page:
            file = folder / each["path"].removeprefix(prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(obstore.get(store, each["path"]).bytes()))


SHORT = {"bbc-minilm-zero2": "10", "tiny-lm": "20", "bbc-names": "12"}


@pytest.mark.parametrize("recipe", SHORT)
def test_a_recipe_runs(cli: Cli, tmp_path: Path, recipe: str) -> None:
    done = cli(
        "run", str(RECIPES / f"{recipe}.yaml"), "--set", f"trainingArguments.max_steps={SHORT[recipe]}", "-o", "json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["metrics"]["eval_loss"] > 0
    assert Path(told["final"], "model.safetensors").exists()


def test_every_recipe_is_run_by_a_test() -> None:
    assert {file.stem for file in RECIPES.glob("*.yaml")} == {*SHORT, "bbc-minilm"}
    assert all(load(file).job.name == file.stem for file in RECIPES.glob("*.yaml"))
