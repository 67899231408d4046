"""The bed itself: it comes up after every crash, and leaves nothing behind."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.bed import cluster, daemons
from tests.bed.kubectl import kubectl
from tests.bed.programs import find


@pytest.fixture
def own() -> None:
    if reason := cluster.why_not():
        pytest.skip(reason)
    if os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names a cluster; this raises and ends the bed's own")
    if cluster.is_up():
        pytest.skip("the cluster is up, and this would end it; run `make cluster-down` first")


def test_it_comes_up_after_any_kill_and_leaves_the_machine_as_it_was(own: None) -> None:
    cluster.up()
    cluster.down()  # packages are installed and kernel tables made by now
    iptables = find("iptables") or ""
    subprocess.run([iptables, "--new-chain", "KUBE-FOREIGN"], check=True)
    before = machine()
    try:
        cluster.up()
        names = daemons.names()
        assert len(names) == 11
        for name in names:
            process = daemons.running(name)
            assert process
            daemons.kill([process])
            cluster.up()
            assert all(part.state in ("running", "Ready") for part in cluster.status()), name
        assert kubectl("get", "--raw", "/readyz") == "ok"
    finally:
        cluster.down()
        after = machine()
        subprocess.run([iptables, "--delete-chain", "KUBE-FOREIGN"], check=False)
    assert after == before


def machine() -> dict[str, list[str]]:
    """Processes, interfaces, mounts, control groups, shims' sockets and packet rules of this machine."""
    seen = {
        "sockets": sorted(path.name for path in Path("/run/containerd/s").glob("*")),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
    }
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    # Not the bed's S3 server by its name: other tests have servers of their own. STATE is in its command.
    marks = ("containerd", "kube", "etcd", "coredns", str(cluster.STATE))
    seen["processes"] = sorted(line for line in commands if any(mark in line for mark in marks))
    seen["cgroups"] = sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/*") if path.is_dir())
    for version in ("iptables", "ip6tables"):
        rules = subprocess.run([find(f"{version}-save") or ""], capture_output=True, text=True, check=True).stdout
        seen[version] = [line for line in rules.splitlines() if line.startswith("-A") or "KUBE" in line]
    return seen
