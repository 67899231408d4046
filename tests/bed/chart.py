"""The operator on a cluster: installed by its chart, with images of this checkout."""

import subprocess
from collections.abc import Callable

from tests.bed import cluster, images, programs
from tests.bed.home import ROOT, BedError
from tests.bed.kubectl import kubeconfig, kubectl

CHART = ROOT / "charts" / "trainyard"
NAMESPACE = "trainyard-system"


def install(trainer: str) -> None:
    """Install it, in place of what a run that was cut off may have left. `trainer` is the image of training pods.

    Raises BedError with helm's words.
    """
    helm("uninstall", "trainyard", "--ignore-not-found", "--wait", "--timeout=60s")
    helm("install", "trainyard", str(CHART), "--create-namespace", *values(trainer), "--wait", "--timeout=60s")


def values(trainer: str) -> list[str]:
    """The values that install() gives the chart, as arguments of helm."""
    given = {"operator.image": images.OPERATOR, "trainer.image": trainer, "trainer.graceSeconds": "30"}
    return [f"--set={name}={value}" for name, value in given.items()]


def uninstall() -> None:
    """Take away what install() has made and is still there, the CRD and its jobs too. Raises BedError."""
    helm("uninstall", "trainyard", "--ignore-not-found", "--wait", "--timeout=60s")
    kubectl("delete", "customresourcedefinition", "trainerjobs.trainyard.dev", "--ignore-not-found", timeout=120)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def load(*names: str, tell: Callable[[str], None] = lambda _: None) -> None:
    """Build images of this checkout, and bring them onto both nodes of the bed's cluster. Raises BedError."""
    builders = {
        images.OPERATOR: images.operator,
        images.TRAINER: images.trainer,
        images.WHOLE_TRAINER: images.whole_trainer,
    }
    for name in names:
        tell(f"building {name}")
        archive = builders[name]()
        for node in cluster.NODES:
            tell(f"{name} onto {node.name}")
            node.load(archive)


def helm(*arguments: str) -> str:
    """What helm prints, in the operator's namespace. Raises BedError with its words when it fails."""
    command = [str(programs.build() / "helm"), f"--kubeconfig={kubeconfig()}", f"--namespace={NAMESPACE}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BedError(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
