"""What bench.upload and bench.restore share: the same files, the same store, each client after the other.

The store is bench.sink with 20 ms for each request and 40 MB/s for each connection. Wall and CPU seconds are the
client's, for each GiB; CPU includes what the kernel does on its behalf. Clients run as they come, with their defaults.
"""

import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import BIN, save
from bench.sink import Shape, shaped
from bench.transfer_client import BUCKET

_GIB = 1 << 30
CASES = {"1 × 1 GB": (1, 1_000_000_000), "16 × 64 MB": (16, 64_000_000), "1,000 × 1 MB": (1000, 1_000_000)}
_MEMORY = "/dev/shm"
PEERS = ("pyarrow", "ray", "boto3", "s5cmd", "rclone")
Took = dict[str, float]


def compare(verb: str, repeats: int) -> dict[str, dict[str, list[Took]]]:
    """Let us and each peer move each case, interleaved, and print the table. Returns case → client → repeats."""
    found: dict[str, dict[str, list[Took]]] = {}
    with tempfile.TemporaryDirectory(dir=_MEMORY) as temporary:
        root = Path(temporary)
        shape = Shape(per_connection=40e6, latency=0.02, folder=str(root / "served"))
        with shaped(shape) as sink:
            os.environ.update(sink.environment)
            for number, (case, (count, size)) in enumerate(CASES.items()):
                rows = found.setdefault(case, {client: [] for client in ("ours", *PEERS)})
                source = root / "served" / BUCKET / f"case-{number}"
                entries = _files(source, count, size)
                for repeat in range(repeats):
                    for client in rows:
                        took = _one(verb, client, source, entries, root)
                        rows[client].append(took)
                        told = ", ".join(f"{name} {value:.3g}" for name, value in took.items())
                        print(f"  {case}, {repeat + 1}/{repeats}: {client}: {told}", file=sys.stderr, flush=True)
                shutil.rmtree(source)
    _table(verb, found, repeats)
    save(verb, found)
    return found


def median(rows: list[Took], name: str) -> float:
    """The median of a figure over the repeats."""
    return statistics.median(row[name] for row in rows)


def best(rows: dict[str, list[Took]]) -> str:
    """The peer that was fastest."""
    return min(PEERS, key=lambda peer: median(rows[peer], "seconds"))


def _one(verb: str, client: str, source: Path, entries: str, root: Path) -> Took:
    folder, prefix = source, f"{source.name}-out"
    if verb == "download":
        folder, prefix = root / "target", source.name
        folder.mkdir()
        folder.with_suffix(".json").write_text(entries)
    size = sum(row["size"] for row in json.loads(entries))
    try:
        took = _program(client, verb, folder, prefix) if client in ("s5cmd", "rclone") else None
        took = took or _python(client, verb, folder, prefix)
        if verb == "download" and client != "ray":  # which removes what it has brought
            there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            assert there == size, f"{client} brought {there:,} of {size:,} bytes"
    finally:
        if verb == "download":
            shutil.rmtree(folder)
    return {"seconds": took["seconds"] * _GIB / size, "cpu": took["cpu"] * _GIB / size, "rss_share": took["rss"] / size}


def _python(client: str, verb: str, folder: Path, prefix: str) -> Took:
    command = [sys.executable, "-m", "bench.transfer_client", client, verb, str(folder), prefix]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    took: Took = json.loads(done.stdout.splitlines()[-1])
    return took


def _program(client: str, verb: str, folder: Path, prefix: str) -> Took:
    endpoint, remote = os.environ["AWS_ENDPOINT_URL"], f"s3://{BUCKET}/{prefix}/"
    if client == "s5cmd":
        ends = [f"{folder}/", remote] if verb == "upload" else [f"{remote}*", f"{folder}/"]
        command = [str(BIN / "s5cmd"), "--log", "error", "--endpoint-url", endpoint, "cp", *ends]
    else:
        there = f":s3:{BUCKET}/{prefix}"
        ends = [str(folder), there] if verb == "upload" else [there, str(folder)]
        options = [
            "--s3-provider=Other",
            f"--s3-endpoint={endpoint}",
            "--s3-env-auth",
            "--s3-no-check-bucket",
            "--s3-list-version=2",
        ]
        command = [str(BIN / "rclone"), "--config=/dev/null", "--log-level=ERROR", "copy", *options, *ends]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return {"seconds": time.perf_counter() - start, "cpu": _cpu(used), "rss": used.ru_maxrss * 1024}


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _files(folder: Path, count: int, size: int) -> str:
    """Files of random bytes; what a manifest says of them, as JSON."""
    folder.mkdir(parents=True)
    rows, block = [], os.urandom(1_000_000)
    for index in range(count):
        sha256 = hashlib.sha256()
        with (folder / f"{index:04d}.bin").open("wb") as stream:
            for number in range(size // len(block)):
                piece = (index * 1_000_003 + number).to_bytes(8, "little") + block[8:]
                sha256.update(piece)
                stream.write(piece)
        rows.append({"path": f"{index:04d}.bin", "size": size, "sha256": sha256.hexdigest()})
    return json.dumps(rows)


def _table(verb: str, found: dict[str, dict[str, list[Took]]], repeats: int) -> None:
    print(f"{verb}, 20 ms a request, 40 MB/s a connection: seconds for a GiB, median (range) of {repeats}")
    print(f"{'':<16}{'':<10}{'wall':>24}{'client CPU':>24}{'peak RSS ÷ size':>18}")
    for case, rows in found.items():
        for client, each in rows.items():
            cells = [[took[name] for took in each] for name in ("seconds", "cpu")]
            told = [f"{statistics.median(cell):.2f} ({min(cell):.2f}–{max(cell):.2f})" for cell in cells]
            print(f"{case:<16}{client:<10}{told[0]:>24}{told[1]:>24}{median(each, 'rss_share'):>18.2f}")
