"""What this machine has: also for who knows of no job."""

import contextlib
from pathlib import Path

MEMORY = "/dev/shm"  # noqa: S108 - below it folders with fresh names, each with a mode of its own
"""Where what is staged in memory lies."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that programs can still take here: of the machine, and within the limits of a container or a service.

    None where /proc does not tell. Limits are those of cgroups v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html);
    what is read from files and not used now (inactive_file) makes room when it is needed.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min(found + _within_limits(root)) if found else None


def _within_limits(root: Path) -> list[int]:
    """Bytes left in each cgroup around this process that has a limit."""
    mounted, left = root / "sys/fs/cgroup", list[int]()
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return left
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for folder in (mounted / own, *(mounted / own).parents):
        # A cgroup without a limit has "max" in its file, and the root of all has no file.
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            counted = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(max(0, limit - used + int(counted.get("inactive_file", 0))))
        if folder == mounted:
            break
    return left
