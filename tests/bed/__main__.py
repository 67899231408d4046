"""A real Kubernetes on this machine: python -m tests.bed --help."""

import os
import shlex
import subprocess
import sys

import click

from tests.bed import chart, cluster, images, kwok, programs
from tests.bed.home import BedError
from tests.bed.kubectl import kubectl
from tests.bed.node import Node


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def bed() -> None:
    """A real Kubernetes of two nodes on this Linux machine, for tests and development. Needs root."""


@bed.command()
def build() -> None:
    """Build everything that the cluster and its tests need, and start nothing."""
    cluster.build()


@bed.command()
def up() -> None:
    """Raise the cluster, or what of it is not running."""
    cluster.up()
    print('cluster: up; for a shell: eval "$(make --silent cluster-env)"', file=sys.stderr)


@bed.command()
def down() -> None:
    """End it, and leave the machine as it was."""
    cluster.down()


@bed.command()
def status() -> None:
    """Show every process and node."""
    parts = cluster.status()
    if not parts:
        print("cluster: down; to raise it: make cluster", file=sys.stderr)
    for part in parts:
        print(f"{part.name:<24} {part.state:<9} {part.detail}")


@bed.command()
def env() -> None:
    """Print what a shell needs, to be eval'ed."""
    for name, value in cluster.environment().items():
        print(f"export {name}={shlex.quote(value)}")


@bed.command()
def image() -> None:
    """Build the trainer's whole image, and say how large it is."""
    programs.install_packages()
    archive = images.whole_trainer()
    print(f"{archive}  {archive.stat().st_size / 1e9:.1f} GB")


@bed.command()
def install() -> None:
    """Install the operator on the cluster, with both images of this checkout."""
    cluster.up()
    print(
        "cluster: the trainer's image takes minutes and 7 GB a node, once for each state of the code", file=sys.stderr
    )
    chart.load(images.OPERATOR, images.WHOLE_TRAINER, tell=lambda text: print(f"cluster: {text}", file=sys.stderr))
    chart.install(images.WHOLE_TRAINER)
    print(kubectl("get", "deployments", f"--namespace={chart.NAMESPACE}"), end="")


@bed.command()
def uninstall() -> None:
    """Take the operator away again, with its CRD and all jobs."""
    chart.uninstall()


@bed.group()
def node() -> None:
    """Stop a node, start it again, or add a fake one."""


@node.command("stop")
@click.argument("name")
@click.option(
    "--containers/--no-containers", default=True, help="Whether its containers die too (a partitioned node's live on)."
)
def stop(name: str, containers: bool) -> None:
    """Take a node away without a word."""
    _node(name).stop(containers)


@node.command("start")
@click.argument("name")
def start(name: str) -> None:
    """Bring a node back."""
    cluster.start_node(_node(name))


@node.command("add")
@click.argument("name")
@click.option("--gpus", default=0, type=click.IntRange(min=0), help="How many nvidia.com/gpu it says it has.")
def add(name: str, gpus: int) -> None:
    """Add a fake node (KWOK), for scale and for GPUs."""
    kwok.add_node(name, gpus)


def _node(name: str) -> Node:
    for each in cluster.NODES:
        if each.name == name:
            return each
    raise BedError(f"there is no node {name!r}; there are {', '.join(each.name for each in cluster.NODES)}")


if __name__ == "__main__":
    os.environ.pop("KUBECONFIG", None)  # the bed's own cluster is meant, whatever else somebody works with
    try:
        bed()
    except BedError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(error.cmd[:3])}: {(error.stderr or '').strip()[-500:]}")
