"""The pods' network: one bridge, with an address for each node, and what kube-proxy leaves behind."""

import contextlib
import json
import subprocess
from pathlib import Path

from tests.bed.home import BRIDGE, HOST, STATE
from tests.bed.programs import find

_SETTINGS = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
_BEFORE = STATE / "sysctl.json"


def up() -> None:
    """Make the bridge, and let the kernel forward between pods and services."""
    if not _ip("link", "show", BRIDGE):
        _ip("link", "add", BRIDGE, "type", "bridge", check=True)
    add_address(HOST)
    _ip("link", "set", BRIDGE, "up", check=True)
    if not _BEFORE.exists():
        _BEFORE.write_text(json.dumps({name: _setting(name).read_text().strip() for name in _SETTINGS}))
    for name, value in _SETTINGS.items():
        _setting(name).write_text(value)


def add_address(address: str) -> None:
    """Give the bridge another address, for another node."""
    _ip("address", "replace", f"{address}/16", "dev", BRIDGE, check=True)


def down() -> None:
    """Remove the bridge, what hangs on it, kube-proxy's rules, and set the kernel's settings back."""
    for port in Path(f"/sys/class/net/{BRIDGE}/brif").glob("*"):
        _ip("link", "delete", port.name)
    _ip("link", "delete", BRIDGE)
    for version in ("iptables", "ip6tables"):
        _remove_rules(version)
    if _BEFORE.exists():
        for name, value in json.loads(_BEFORE.read_text()).items():
            with contextlib.suppress(OSError):
                _setting(name).write_text(value)


def _remove_rules(version: str) -> None:
    """Take out every chain of Kubernetes (KUBE-…) and every rule that names one; all others stay as they are."""
    save, restore = find(f"{version}-save"), find(f"{version}-restore")
    if not save or not restore:
        return
    before = subprocess.run([save], capture_output=True, text=True, check=False).stdout
    if "KUBE-" in before:
        kept = "".join(line for line in before.splitlines(keepends=True) if "KUBE-" not in line)
        subprocess.run([restore], input=kept, text=True, check=True, capture_output=True)


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name


def _ip(*arguments: str, check: bool = False) -> bool:
    return subprocess.run([find("ip") or "ip", *arguments], check=check, capture_output=True).returncode == 0
