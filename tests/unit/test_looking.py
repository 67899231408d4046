"""Verbs that only look at a run make nothing."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import manifest
from trainyard.cli.cluster import run_of
from trainyard.cli.main import trainyard
from trainyard.errors import NotFoundError
from trainyard.spec.yamltext import dump


@pytest.mark.parametrize(
    "verb",
    [["ls"], ["verify"], ["pull"], ["rm", "--yes"], ["save"]],
    ids=["ls", "verify", "pull", "rm", "save"],
)
@pytest.mark.parametrize("form", ["file://{folder}/typo/run", "{folder}/typo/run", "{folder}/job.yaml"])
def test_looking_at_a_run_that_is_not_there_makes_no_folder(tmp_path: Path, verb: list[str], form: str) -> None:
    (tmp_path / "job.yaml").write_text(dump(manifest(storage={"uri": str(tmp_path / "typo")})))
    rest = ["10"] if verb[0] == "rm" else []
    result = CliRunner().invoke(trainyard, ["ckpt", *verb, form.format(folder=tmp_path), *rest])
    assert isinstance(result.exception, NotFoundError)
    assert "no such" in str(result.exception)
    assert not (tmp_path / "typo").exists()


def test_storage_on_a_volume_of_the_cluster_is_said(tmp_path: Path) -> None:
    job = {"spec": {"storage": {"uri": f"file://{tmp_path}/volume"}}, "metadata": {"namespace": "team", "name": "job"}}
    with pytest.raises(NotFoundError, match="volume of its pods"):
        run_of(job)
    assert not (tmp_path / "volume").exists()
