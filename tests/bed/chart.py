"""The operator on a cluster: installed by its chart, with images of this checkout."""

import subprocess

from tests.bed import cluster, images, programs
from tests.bed.home import ROOT, BedError
from tests.bed.kubectl import kubeconfig, kubectl

CHART = ROOT / "charts" / "trainyard"
NAMESPACE = "trainyard-system"


def install(trainer: str) -> None:
    """Install it, in place of what a run that was cut off may have left. `trainer` is the image of training pods."""
    helm("uninstall", "trainyard", "--ignore-not-found", "--wait", "--timeout=60s")
    values = {"operator.image": images.OPERATOR, "trainer.image": trainer, "trainer.graceSeconds": "30"}
    given = [f"--set={name}={value}" for name, value in values.items()]
    helm("install", "trainyard", str(CHART), "--create-namespace", *given, "--wait", "--timeout=60s")


def uninstall() -> None:
    """Take away what install() has made, the CRD and its jobs too."""
    helm("uninstall", "trainyard", "--wait", "--timeout=60s")
    kubectl("delete", "customresourcedefinition", "trainerjobs.trainyard.dev", timeout=120)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def load(*names: str) -> None:
    """Build images of this checkout, and bring them onto both nodes of the bed's cluster. Raises BedError."""
    builders = {
        images.OPERATOR: images.operator,
        images.TRAINER: images.trainer,
        images.WHOLE_TRAINER: images.whole_trainer,
    }
    for name in names:
        archive = builders[name]()
        for node in cluster.NODES:
            node.load(archive)


def helm(*arguments: str) -> str:
    """What helm prints, in the operator's namespace. Raises BedError with its words when it fails."""
    command = [str(programs.build() / "helm"), f"--kubeconfig={kubeconfig()}", f"--namespace={NAMESPACE}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BedError(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
