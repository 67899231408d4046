"""Container images without a registry: made here, imported into each node's containerd.

An archive is what `docker save` writes: a manifest, a config and layers in a tar file
(https://github.com/moby/moby/blob/master/image/spec/v1.2.md).
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.bed.home import BUILDS, CACHE, ROOT, BedError
from tests.bed.programs import find

_SUITE = "bookworm"
_FORMAT = 2
"""Raised when archives are packed in another way, so that those in the cache are not used."""
_BASE_PACKAGES = "ca-certificates,libgomp1,python3"
BASE = "localhost/base:1"
OPERATOR, TRAINER, WHOLE_TRAINER = (
    "localhost/trainyard-operator:1",
    "localhost/trainer:1",
    "localhost/trainyard-trainer:1",
)


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
    archive = BUILDS / f"base-{_digest(f'{_SUITE} {_BASE_PACKAGES} {_FORMAT}'.encode())}.tar"
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


def trainer() -> Path:
    """Archive of the trainer's image without its environment, which tests mount (`environment`)."""
    return _built("jobs/Dockerfile", TRAINER, "runtime", [ROOT / "jobs" / "Dockerfile"])


def operator() -> Path:
    """Archive of the operator's image."""
    sources = _files("operator", "jobs/environment.sh", "jobs/trainyard", "requirements.lock", "pyproject.toml")
    return _built("operator/Dockerfile", OPERATOR, None, sources)


def whole_trainer() -> Path:
    """Archive of the trainer's image as it is released, environment and all: some 7 GB."""
    sources = _files("jobs", "requirements.lock", "pyproject.toml")
    archive = _built("jobs/Dockerfile", WHOLE_TRAINER, None, sources)
    for older in set(BUILDS.glob("trainyard-trainer-*.tar")) - {archive}:
        older.unlink()  # each is 7 GB, and there is one for each change of the code
    return archive


def environment() -> Path:
    """Folder with the environment of training pods, with trainyard as it is in the checkout now."""
    script = ROOT / "jobs" / "environment.sh"
    folder = BUILDS / f"environment-{_digest(*(file.read_bytes() for file in (script, ROOT / 'requirements.lock')))}"
    uv, python = Path(sys.executable).parent / "uv", "/usr/bin/python3"
    if not (folder / ".whole").exists():
        print("cluster: making the environment of the pods (a minute, once)", file=sys.stderr)
        _run([str(script), str(ROOT), str(folder)], "environment", {"UV": str(uv), "PYTHON": python})
        (folder / ".whole").touch()
    install = [str(uv), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--reinstall", str(ROOT)]
    _run(install, "environment", {"VIRTUAL_ENV": str(folder)})
    return folder


def _built(dockerfile: str, name: str, target: str | None, sources: list[Path]) -> Path:
    """Build one of the project's Dockerfiles on the base, once for each state of its sources."""
    base_archive = base()
    digest = _digest(base_archive.name.encode(), *(file.read_bytes() for file in sources))
    archive = BUILDS / f"{name.partition('/')[2].partition(':')[0]}-{digest}.tar"
    if not archive.exists():
        storage = BUILDS / "buildah"
        buildah = [
            find("buildah") or "buildah", f"--root={storage / 'root'}", f"--runroot={storage / 'run'}",
            "--storage-driver=vfs",
        ]  # fmt: skip
        try:
            _run([*buildah, "pull", "--quiet", f"docker-archive:{base_archive}"], "buildah pull")
            build = [
                *buildah,
                "bud",
                "--isolation=chroot",
                f"--build-arg=BASE={BASE}",
                f"--tag={name}",
                f"--file={dockerfile}",
            ]
            # Packages come through the machine's certificates and uv's cache.
            for there, inside in (("/etc/ssl/certs", "/etc/ssl/certs"), (str(CACHE.parent / "uv"), "/var/cache/uv")):
                if Path(there).is_dir():
                    build.append(f"--volume={there}:{inside}" + (":ro" if inside.startswith("/etc") else ""))
            _run([*build, *([f"--target={target}"] if target else []), str(ROOT)], f"buildah bud {dockerfile}")
            unfinished = archive.with_suffix(".unfinished")
            unfinished.unlink(missing_ok=True)
            _run([*buildah, "push", "--quiet", name, f"oci-archive:{unfinished}:{name}"], "buildah push")
            unfinished.rename(archive)
        finally:
            shutil.rmtree(storage, ignore_errors=True)
    return archive


def _files(*names: str) -> list[Path]:
    """The files of the checkout of these names, and below these folders, but for what running them leaves there."""
    found = [
        path for name in names for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
    ]
    return sorted(path for path in found if path.is_file() and path.parent.name != "__pycache__")


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
        # buildah counts layers by it when an image is built on this one.
        "history": [{"created_by": "tests/bed"}],
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


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12]


def _run(command: list[str], what: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BedError(f"{what}:\n{(done.stdout + done.stderr)[-2000:]}")
