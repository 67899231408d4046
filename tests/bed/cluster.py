"""The cluster as a whole: up, down, and what state it is in."""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bed import control, daemons, images, kwok, network, node, programs, s3
from tests.bed.home import BUILDS, STATE, BedError
from tests.bed.kubectl import KUBECTL, kubectl
from tests.bed.node import Node
from tests.bed.pki import FOLDER, Authority

NODES = (Node(1), Node(2))
_SHIM_SOCKETS = Path("/run/containerd/s")
_NODE_SECONDS = 150
_STATUS_SECONDS = 5


def why_not() -> str | None:
    """Why this machine cannot raise a cluster, or None when it can."""
    if sys.platform != "linux":
        return "a cluster needs Linux; set KUBECONFIG to use one that is there"
    if os.geteuid() != 0:
        return "a cluster needs root; set KUBECONFIG to use one that is there"
    return None


def is_up() -> bool:
    """Whether a cluster is up, or half up after a crash."""
    return STATE.exists()


def build() -> None:
    """Install, build and make everything that a cluster and its tests need, and start nothing."""
    if reason := why_not():
        raise BedError(reason)
    with _alone("build"):
        programs.install_packages()
        images.pause(programs.build())
        for make in (images.trainer, images.operator, images.environment, programs.build_kwok):
            make()


def up() -> None:
    """Raise the cluster, or what of it is not running. Raises BedError with the reason when it does not come up."""
    if reason := why_not():
        raise BedError(reason)
    with _alone("cluster"):
        with _alone("build"):
            programs.install_packages()
            binaries = programs.build()
            archives = [images.pause(binaries), images.base()]
        STATE.mkdir(parents=True, exist_ok=True)
        network.up()
        authority = Authority()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            nodes = [pool.submit(_start_runtime, each, archives) for each in NODES]
            control.up(binaries, authority)
            s3.up()
            for each in nodes:
                each.result()
        for each in NODES:
            each.start_kubelet(binaries, authority)
        wait_nodes([each.name for each in NODES])
        control.wait()
        kwok.up()


def wait_nodes(names: list[str], known: Callable[[str], bool] | None = None) -> None:
    """Wait until nodes are known (registered, or what is asked for) and ready. Raises BedError when they are not."""
    deadline = time.monotonic() + _NODE_SECONDS
    for name in names:
        daemons.wait(
            f"kubelet-{name.rsplit('-')[-1]}",
            name,
            lambda name=name: (known or _exists)(name),
            deadline - time.monotonic(),
        )
    try:
        kubectl(
            "wait", "--for=condition=Ready", f"--timeout={_NODE_SECONDS}s", *[f"node/{name}" for name in names],
            timeout=_NODE_SECONDS + 5,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        logs = [daemons.log(f"kubelet-{name.rsplit('-')[-1]}") for name in names]
        tails = [line[:300] for log in logs for line in log.read_text(errors="replace").splitlines()[-20:]]
        raise BedError("\n".join([f"nodes are not ready: {error}", *tails])) from error


def down() -> None:
    """End everything that `up` started, also what a crash of it has left."""
    if reason := why_not():
        raise BedError(reason)
    with _alone("cluster"):
        daemons.end(*daemons.names())
        _end_strays()
        _remove_dead_sockets()
        _unmount()
        node.remove_cgroups()
        if programs.find("ip"):
            network.down()
        if left := _mounts():
            raise BedError(f"still mounted, so that nothing below {STATE} was removed: {', '.join(left)}")
        shutil.rmtree(STATE, ignore_errors=True)


@dataclass(frozen=True)
class Part:
    """A process of the cluster, or a node, and its state."""

    name: str
    state: str
    detail: str


def status() -> list[Part]:
    """Every process and every node; nothing when there is no cluster."""
    if not is_up():
        return []
    parts = []
    for name in sorted(daemons.names()):
        process = daemons.running(name)
        detail = f"pid {process.pid}, {process.memory_info().rss >> 20} MiB" if process else str(daemons.log(name))
        parts.append(Part(name, "running" if process else "ended", detail))
    try:
        nodes = json.loads(kubectl("get", "nodes", "-o", "json", timeout=_STATUS_SECONDS))["items"]
    except subprocess.SubprocessError:
        return [*parts, Part("nodes", "unknown", "the API server does not answer; `up` starts what has ended")]
    for each in nodes:
        conditions = {one["type"]: one["status"] for one in each["status"].get("conditions", [])}
        state = "Ready" if conditions.get("Ready") == "True" else "NotReady"
        parts.append(Part(each["metadata"]["name"], state, "node"))
    return parts


def environment() -> dict[str, str]:
    """What a shell needs. Raises BedError when there is no cluster."""
    if not is_up():
        raise BedError("the cluster is down; to raise it: make cluster")
    server = s3.up()
    return {
        **server.environment,
        "KUBECONFIG": str(FOLDER / "admin.kubeconfig"),
        "PATH": f"{KUBECTL.parent}:{programs.build()}:{os.environ.get('PATH', '')}",
    }


def start_node(each: Node) -> None:
    """Bring a node back, and wait until it is ready: what it said before it was stopped does not count."""
    before = _renewed(each.name)
    each.start_runtime()
    each.start_kubelet(programs.build(), Authority())
    wait_nodes([each.name], lambda name: _renewed(name) != before)


def _start_runtime(each: Node, archives: list[Path]) -> None:
    each.start_runtime()
    for archive in archives:
        each.load(archive)


def _exists(name: str) -> bool:
    try:
        return bool(kubectl("get", "node", name, "--ignore-not-found", "-o", "name").strip())
    except subprocess.SubprocessError:
        return False


def _renewed(name: str) -> str:
    """When a node has last said that it is there."""
    try:
        return kubectl("get", "lease", name, "--namespace=kube-node-lease", "--output=jsonpath={.spec.renewTime}")
    except subprocess.SubprocessError:
        return ""


def _end_strays() -> None:
    """Kill what has the cluster's folder in its command or its environment: shims and what runs in their containers."""
    for each in NODES:
        each.kill_containers()
    daemons.kill([process for process in psutil.process_iter(["cmdline"]) if _is_ours(process)])


def _remove_dead_sockets() -> None:
    """Remove the sockets of shims that are gone: containerd has them in one folder, whatever its own is."""
    for file in _SHIM_SOCKETS.glob("*"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(file))
            except ConnectionRefusedError:
                file.unlink(missing_ok=True)  # another containerd's that lives would answer
            except OSError:
                continue


def _is_ours(process: psutil.Process) -> bool:
    """Whether a process was started for the cluster: its program's arguments or its control group say so."""
    if process.pid == os.getpid():
        return False
    if any(str(STATE) in part for part in process.info["cmdline"] or []):
        return True
    with contextlib.suppress(OSError):
        return any(":/trainyard/" in line for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines())
    return False


def _unmount() -> None:
    """Unmount everything below the cluster's folder, the innermost first."""
    for mount in reversed(_mounts()):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def _mounts() -> list[str]:
    """What is mounted below the cluster's folder. The kernel writes blanks and the like as octal numbers."""
    raw = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), mount) for mount in raw]
    return [mount for mount in mounts if mount.startswith(f"{STATE}/")]


@contextlib.contextmanager
def _alone(what: str) -> Iterator[None]:
    """One process at a time on this machine builds, and one raises or ends the cluster."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    with (BUILDS / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
