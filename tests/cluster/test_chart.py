"""The chart: it lints, refuses typos, and what it renders is taken by a real API server."""

import subprocess

import pytest

from tests.bed import programs
from tests.bed.kubectl import kubectl
from tests.cluster.conftest import CHART


def rendered(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(programs.build() / "helm"), "template", "trainyard", str(CHART), "--kube-version=1.31", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("cluster")
def test_it_lints() -> None:
    done = subprocess.run(
        [str(programs.build() / "helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("value", ["operator.replica=2", "operator.replicas=many", "trainer.img=x"])
def test_a_typo_in_a_value_is_refused(value: str) -> None:
    assert rendered().returncode == 0
    assert rendered("--set", value).returncode != 0


@pytest.mark.parametrize("wide", ["true", "false"], ids=["cluster", "namespace"])
def test_an_api_server_takes_what_it_renders(namespace: str, wide: str) -> None:
    text = rendered("--namespace", namespace, "--set", f"rbac.clusterWide={wide}").stdout
    assert "kind: Deployment" in text
    told = kubectl("apply", "--server-side", "--dry-run=server", "--namespace", namespace, "-f", "-", stdin=text)
    assert "deployment.apps/trainyard-operator" in told


@pytest.mark.usefixtures("cluster")
def test_the_operator_may_not_read_secrets() -> None:
    roles = rendered().stdout
    secrets = [line for line in roles.splitlines() if "secrets" in line and "verbs" in line]
    assert secrets
    assert not any(verb in line for line in secrets for verb in ("get", "list", "watch", "*"))
