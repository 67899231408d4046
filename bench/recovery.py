"""Seconds from the loss of a pod or a node to the next new step, on the bed's two nodes.

    python -m bench.recovery [kills]

Split into: detect (the loss is in the job's status), replace (the new pod runs), form (the training processes of the
next attempt start: every worker is in the Ray cluster), restore (from there to the first new step). There is no peer
in the same run: KubeRay's operator cannot be had from package registries; its RayJob took 41 s for a worker and 61 s
for the head on such a machine.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import obstore

from bench.cluster import Place, place, seconds_until
from bench.common import make_inputs, save, spread
from tests.bed import cluster as bed
from tests.bed.chart import NAMESPACE as OPERATOR
from tests.bed.kubectl import apply, get, kubectl, read
from tests.bed.node import Node
from tests.cluster.jobs import status_of, worker_pod

ARGUMENTS = {
    "max_steps": 1_000_000, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 25,
    "learning_rate": 1e-4,
}  # fmt: skip
_SETTLED = 20.0
"""Seconds that an attempt has gone on for when it is struck: one that has only just begun is another case."""
PARTS = ("detect", "replace", "form", "restore", "total")


def lose(where: Place, name: str, pod: str, inflict: Callable[[], None], replaced: bool = True) -> dict[str, float]:
    """Inflict a loss, and take the times up to the next new step."""
    before = status_of(where.namespace, name)
    old = get("pod", pod, "--namespace", where.namespace)["metadata"]["uid"] if replaced else ""
    wall, start = time.time(), time.monotonic()
    inflict()
    detect = seconds_until(lambda: status_of(where.namespace, name)["state"] != "Running")
    replace = detect
    if replaced:
        seconds_until(lambda: _runs(where, pod, old))
        replace = time.monotonic() - start
    seconds_until(lambda: status_of(where.namespace, name).get("attempt", 0) > before["attempt"])
    attempt = status_of(where.namespace, name)["attempt"]
    claim = json.loads(_read(where, name, f"attempts/{attempt:05d}.json"))
    # The claim tells whole seconds, and the attempt before may have made its last step within this one.
    claimed = datetime.fromisoformat(claim["started_at"]).timestamp() + 1.0
    seconds_until(lambda: status_of(where.namespace, name)["state"] == "Running")
    # Not before and not often: to read all rows takes longer from loss to loss, and a core from what is measured.
    seconds_until(lambda: bool(_steps(where, name, claimed)), pause=1.0)
    total = _steps(where, name, claimed)[0] - wall
    seconds_until(lambda: bool(_begun(where, name, wall)), pause=1.0)
    form = max(_begun(where, name, wall)[0] - wall, replace)
    seconds_until(lambda: status_of(where.namespace, name).get("checkpoint", "") > before["checkpoint"])
    seconds_until(lambda: time.time() > claimed + _SETTLED)
    return {
        "detect": detect, "replace": replace - detect, "form": form - replace, "restore": total - form, "total": total,
    }  # fmt: skip


def _read(where: Place, name: str, path: str) -> bytes:
    return bytes(obstore.get(where.s3.store("runs"), f"{where.namespace}/{name}/{path}").bytes())


def _steps(where: Place, name: str, since: float) -> list[float]:
    """When the steps after a moment ended. Their log comes to storage a few seconds later."""
    rows = [json.loads(line) for line in _read(where, name, "metrics.jsonl").splitlines()]
    return sorted(row["time"] for row in rows if "loss" in row and row["time"] > since)


def _begun(where: Place, name: str, since: float) -> list[float]:
    """When the training process of rank 0, in whatever pod it is, began after a moment."""
    stamps = []
    for pod in _pods(where, name):
        log = kubectl("--namespace", where.namespace, "logs", pod, "--timestamps")
        lines = [line for line in log.splitlines() if line.endswith(f"{name}: preparing")]
        stamps += [datetime.fromisoformat(line.split()[0]).timestamp() for line in lines]
    return sorted(stamp for stamp in stamps if stamp > since)


def _pods(where: Place, name: str) -> list[str]:
    items = read(f"/api/v1/namespaces/{where.namespace}/pods")["items"]
    running = [each["metadata"]["name"] for each in items if each["status"].get("phase") == "Running"]
    return [pod for pod in running if pod.startswith(f"{name}-")]


def _runs(where: Place, pod: str, old: str) -> bool:
    items = read(f"/api/v1/namespaces/{where.namespace}/pods")["items"]
    found = [each for each in items if each["metadata"]["name"] == pod and each["metadata"]["uid"] != old]
    return any(each["status"].get("phase") == "Running" for each in found)


def kill(where: Place, pod: str) -> Callable[[], None]:
    """Takes a pod away without a word."""
    command = ("--namespace", where.namespace, "delete", "pod", pod, "--force", "--grace-period=0", "--wait=false")
    return lambda: kubectl(*command) and None


def main(kills: int = 10) -> None:
    """Print the table and save the numbers."""
    taken: dict[str, list[dict[str, float]]] = {}

    def note(kind: str, took: dict[str, float]) -> None:
        taken.setdefault(kind, []).append(took)
        print(f"  {kind}: {took['total']:.1f} s", file=sys.stderr)
        save("recovery", taken)

    with tempfile.TemporaryDirectory() as temporary:
        make_inputs(Path(temporary))
        with place(Path(temporary)) as where:
            _start(where, "plain", 0)
            for _ in range(kills):
                note("worker", lose(where, "plain", "plain-1", kill(where, "plain-1")))
                note("head", lose(where, "plain", "plain-0", kill(where, "plain-0")))
            pod, node = _without_operator(where, "plain")
            note("node", lose(where, "plain", pod, node.stop))
            bed.start_node(node)
            kubectl("--namespace", where.namespace, "delete", "trainerjob", "plain")
            _start(where, "spare", 1)
            for _ in range(kills // 2):
                pod = worker_pod(where.namespace, "spare", 1)
                note("worker, 1 spare", lose(where, "spare", pod, kill(where, pod), replaced=False))
    print("seconds from a loss to the next new step, median (range); detect | replace | form | restore are medians")
    for name, rows in taken.items():
        parts = " | ".join(f"{statistics.median(row[part] for row in rows):.1f}" for part in PARTS[:-1])
        print(f"{name:<18}{spread([row['total'] for row in rows]):>22}   {parts}   ({len(rows)} losses)")
    worker = [row["total"] for row in taken["worker"]]
    half = len(worker) // 2
    later = statistics.median(worker[half:]) / statistics.median(worker[:half] or worker)
    print(
        f"worker: the last loss took {worker[-1] / worker[0]:.2f}× the first, the later half {later:.2f}× the earlier; "
        "goals: worker ≤ 15, head ≤ 25, spare ≤ 8"
    )


def _start(where: Place, name: str, spares: int) -> None:
    restart = {"maxRestarts": 100}
    apply(where.job(name, trainingArguments=ARGUMENTS, restart=restart, workers={"spares": spares}))
    seconds_until(lambda: bool(status_of(where.namespace, name).get("checkpoint")))
    seconds_until(lambda: status_of(where.namespace, name)["state"] == "Running")


def _without_operator(where: Place, job: str) -> tuple[str, Node]:
    """A pod of the job and its node, on which the operator does not run: its own move would be in the time."""
    operator = get("pods", "--namespace", OPERATOR)["items"][0]["spec"]["nodeName"]
    node = next(each for each in bed.NODES if each.name != operator)
    placed = {
        pod: get("pod", pod, "--namespace", where.namespace)["spec"]["nodeName"] for pod in (f"{job}-0", f"{job}-1")
    }
    return next(pod for pod, name in placed.items() if name == node.name), node


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
