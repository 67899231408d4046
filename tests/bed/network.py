"""The pods' network: one bridge, with an address for each node, and what kube-proxy leaves behind."""

import contextlib
import json
import subprocess
from pathlib import Path

from tests.bed.home import BRIDGE, HOST, STATE
from tests.bed.programs import find

_SETTINGS = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
_BEFORE = STATE / "sysctl.json"
_TABLES = ("iptables", "ip6tables")


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
    for table in _TABLES:
        if not _rules_before(table).exists():
            _rules_before(table).write_text("\n".join(_of_kubernetes(_saved(table))))


def add_address(address: str) -> None:
    """Give the bridge another address, for another node."""
    _ip("address", "replace", f"{address}/16", "dev", BRIDGE, check=True)


def down() -> None:
    """Remove the bridge, what hangs on it, kube-proxy's rules, and set the kernel's settings back."""
    for port in Path(f"/sys/class/net/{BRIDGE}/brif").glob("*"):
        _ip("link", "delete", port.name)
    _ip("link", "delete", BRIDGE)
    for table in _TABLES:
        _remove_rules(table)
    if _BEFORE.exists():
        for name, value in json.loads(_BEFORE.read_text()).items():
            with contextlib.suppress(OSError):
                _setting(name).write_text(value)


def _remove_rules(table: str) -> None:
    """Take out the chains of Kubernetes (KUBE-…) and the rules that name one, but for those that were there before."""
    now, restore, before = _saved(table), find(f"{table}-restore"), _rules_before(table)
    foreign = set(before.read_text().splitlines()) if before.exists() else set()
    ours = {line for line in _of_kubernetes(now) if line not in foreign}
    if ours and restore:
        kept = "".join(f"{line}\n" for line in now if line not in ours)
        subprocess.run([restore], input=kept, text=True, check=True, capture_output=True)


def _saved(table: str) -> list[str]:
    save = find(f"{table}-save")
    return subprocess.run([save], capture_output=True, text=True, check=False).stdout.splitlines() if save else []


def _of_kubernetes(lines: list[str]) -> list[str]:
    return [line for line in lines if "KUBE-" in line]


def _rules_before(table: str) -> Path:
    return STATE / f"{table}-before.txt"


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name


def _ip(*arguments: str, check: bool = False) -> bool:
    return subprocess.run([find("ip") or "ip", *arguments], check=check, capture_output=True).returncode == 0
