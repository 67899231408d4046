"""Container images without a registry: made here, imported into each node's containerd.

An archive is what `docker save` writes: a manifest, a config and layers in a tar file
(https://github.com/moby/moby/blob/master/image/spec/v1.2.md).
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.bed.home import BUILDS, BedError
from tests.bed.programs import find

_SUITE = "bookworm"
_BASE_PACKAGES = "ca-certificates,libgomp1,python3"
BASE = "localhost/base:1"


def pause(programs: Path) -> Path:
    """Archive of the image that holds a pod's namespaces: one static program that waits."""
    program = programs / "pause"
    archive = BUILDS / f"pause-{_digest(program.read_bytes())}.tar"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=BUILDS) as folder:
            root = Path(folder) / "root"
            root.mkdir()
            shutil.copy(program, root / "pause")
            _pack(root, "localhost/pause:1", archive, {"Entrypoint": ["/pause"]})
    return archive


def base() -> Path:
    """Archive of a small Debian with its Python, made by debootstrap: the base that the project's images build on."""
    archive = BUILDS / f"base-{_digest(f'{_SUITE} {_BASE_PACKAGES}'.encode())}.tar"
    if not archive.exists():
        print("cluster: making the base image (a minute, once)", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=BUILDS) as folder:
            root = Path(folder) / "root"
            script = [find("debootstrap") or "debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", _SUITE]
            _run([*script, str(root)], "debootstrap")
            for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
                shutil.rmtree(root / waste, ignore_errors=True)
            _pack(root, BASE, archive, {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/bin/bash"]})
    return archive


def _pack(root: Path, name: str, archive: Path, config: dict[str, object]) -> None:
    """Write a folder as an image of one layer; whole, or not at all."""
    layer = root.parent / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        for child in sorted(root.iterdir()):
            tar.add(child, arcname=child.name, filter=_no_device)
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    document = json.dumps(image).encode()
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as tar:
        tar.add(layer, arcname="layer.tar")
        for member, content in (("config.json", document), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    unfinished.rename(archive)


def _no_device(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.isdev() else member


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BedError(f"{what}:\n{(done.stdout + done.stderr)[-2000:]}")
