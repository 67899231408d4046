"""A node: its own containerd and kubelet, with an address of its own on the bridge."""

import contextlib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bed import daemons, network
from tests.bed.home import BRIDGE, DNS_SERVICE, DOMAIN, HOST, NETWORK, STATE
from tests.bed.pki import CA, Authority
from tests.bed.programs import find

_CGROUPS = Path("/sys/fs/cgroup")
_DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins/kubelet.sock"


@dataclass(frozen=True)
class Node:
    """The n-th node of the bed, counted from 1."""

    number: int

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """Its address on the bridge; pods start at 10.88.1.0."""
        return f"10.88.0.{10 + self.number}"

    @property
    def folder(self) -> Path:
        """Where it keeps everything."""
        return STATE / "nodes" / self.name

    @property
    def socket(self) -> Path:
        """Where its containerd listens."""
        return self.folder / "containerd.sock"

    @property
    def _runtime(self) -> str:
        return f"containerd-{self.number}"

    @property
    def _kubelet(self) -> str:
        return f"kubelet-{self.number}"

    def start_runtime(self) -> None:
        """Start containerd, and wait until it answers."""
        network.add_address(self.address)
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "containerd.toml"
        config.write_text(self._containerd_config())
        _cni_config(self.folder / "cni")
        daemons.start(self._runtime, [find("containerd") or "containerd", "--config", config])
        daemons.wait(self._runtime, self.name, lambda: self.ctr("version", check=False).returncode == 0)

    def start_kubelet(self, programs: Path, authority: Authority) -> None:
        """Start the kubelet, and wait until another may start; `kubectl wait node` tells when it is ready."""
        for controller in _controllers():
            (controller / "trainyard" / self.name).mkdir(parents=True, exist_ok=True)
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps(self._kubelet_config(authority), indent=1))
        command = [
            programs / "kubelet", f"--config={config}", f"--hostname-override={self.name}", f"--node-ip={self.address}",
            f"--root-dir={self.folder / 'kubelet'}", f"--cert-dir={self.folder / 'certs'}",
            f"--kubeconfig={authority.kubeconfig(f'system:node:{self.name}', 'system:nodes')}",
        ]  # fmt: skip
        daemons.start(self._kubelet, command, env={"PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '')}"})
        daemons.wait(self._kubelet, self.name, self._takes_plugins)

    def _takes_plugins(self) -> bool:
        """Whether the kubelet listens at its socket for device plugins.

        The path is built in, so the nodes share it: a kubelet removes what is there and then listens, and of two
        that do so at once the second finds the address in use, and ends.
        """
        process = daemons.running(self._kubelet)
        with contextlib.suppress(psutil.NoSuchProcess):
            return process is not None and any(
                connection.laddr == _DEVICE_PLUGINS for connection in process.net_connections("unix")
            )
        return False

    def stop(self, containers: bool = True) -> None:
        """Take the node away without a word: kubelet and containerd, and by choice its containers too.

        Containers that live on are what a partitioned node has: nobody sees them, and they still work.
        """
        daemons.end(self._kubelet, self._runtime)
        if containers:
            self.kill_containers()

    def kill_containers(self) -> None:
        """Kill containerd's shims of this node, and every process in its containers."""
        shims = [process for process in psutil.process_iter(["cmdline"]) if self._is_shim(process.info["cmdline"])]
        contained = {child for shim in shims for child in shim.children(recursive=True)} | self._in_cgroup()
        # The shims last: they reap what ran in their containers.
        daemons.kill(contained)
        daemons.kill(shims)

    def _in_cgroup(self) -> set[psutil.Process]:
        """What runs in the node's control group: also those whose shim has died before them."""
        found = set()
        for file in (
            folder for each in _controllers() for folder in (each / "trainyard" / self.name).rglob("cgroup.procs")
        ):
            for pid in file.read_text().split():
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.add(psutil.Process(int(pid)))
        return found

    def load(self, archive: Path) -> None:
        """Import an image archive, unless its images are there: a kubelet that wants room removes what no pod uses."""
        marker = self.folder / f"{archive.name}.imported"
        names = set(marker.read_text().split()) if marker.exists() else set()
        if not names or names - set(self.ctr("images", "ls", "--quiet").stdout.split()):
            told = self.ctr("images", "import", str(archive)).stdout
            marker.write_text("\n".join(re.findall(r"^unpacking (\S+)", told, re.MULTILINE)))

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """containerd's own client, in the namespace of Kubernetes."""
        command = [find("ctr") or "ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def _is_shim(self, command: list[str] | None) -> bool:
        return bool(command) and "containerd-shim" in command[0] and str(self.socket) in command

    def _containerd_config(self) -> str:
        return f"""\
version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/run"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE runc cannot lower a container's score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.folder}/cni"
"""

    def _kubelet_config(self, authority: Authority) -> dict[str, Any]:
        cert, key = authority.issue(f"kubelet-{self.number}", self.address, self.name)
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "healthzBindAddress": self.address,
            "authentication": {"x509": {"clientCAFile": str(CA)}, "anonymous": {"enabled": False}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(cert),
            "tlsPrivateKeyFile": str(key),
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/trainyard/{self.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            # The machine's disk is shared: its fullness is not this node's.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "maxPods": 250,
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "registryPullQPS": 0,
            "serializeImagePulls": False,
        }


def remove_cgroups() -> None:
    """Remove the control groups of all nodes; they must be empty."""
    for controller in _controllers():
        for folder in sorted((controller / "trainyard").rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if folder.is_dir():
                with contextlib.suppress(OSError):  # something still runs there: the rest is removed all the same
                    folder.rmdir()
        with contextlib.suppress(OSError):
            (controller / "trainyard").rmdir()


def _controllers() -> list[Path]:
    """Folder of each cgroup v1 controller, or the one of cgroup v2."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [folder for folder in _CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _cni_config(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # One network name and one folder for all nodes: an address is given once.
    plugin = {
        "type": "bridge",
        "bridge": BRIDGE,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(STATE / "addresses"),
            "ranges": [[{"subnet": NETWORK, "rangeStart": "10.88.1.0", "gateway": HOST}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    document = {"cniVersion": "0.4.0", "name": "trainyard", "plugins": [plugin]}
    (folder / "10-trainyard.conflist").write_text(json.dumps(document))
