"""Seconds from `kubectl apply` to the first training step and to the end, on the bed's two nodes.

    python -m bench.apply [repeats]

The peer is what runs without an operator: an Indexed Job of two pods that runs torchrun with a plain Trainer script
(bench/plain_trainer.py), in the same image and environment, on inputs that lie ready. What it lacks (model and data
from S3, checkpoints to S3, progress, an exported model) is in the other's time.
"""

import json
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from bench.cluster import MOUNT, Object, Place, place
from bench.common import make_inputs, save, spread
from tests.bed.kubectl import apply, kubectl
from tests.cluster.conftest import claimed
from trainyard.storage import segments
from trainyard.storage.store import Store

STEPS = 10
ARGUMENTS = {
    "max_steps": STEPS, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": STEPS,
    "learning_rate": 1e-4,
}  # fmt: skip


def ours(where: Place, name: str) -> tuple[float, float, float]:
    """Seconds from apply to the first step and to Complete, and from the last step to Complete."""
    started, wall = time.monotonic(), time.time()
    apply(where.job(name, trainingArguments=ARGUMENTS))
    _wait(where, f"trainerjob/{name}", "Complete")
    complete = time.monotonic() - started
    path = f"{where.namespace}/{name}/metrics.jsonl"
    backend = where.s3.store("runs")
    text = segments.read(Store("s3://runs", "s3", backend, (backend, backend)), path)
    rows = [json.loads(line) for line in text.splitlines()]
    steps = [row["time"] - wall for row in rows if "loss" in row]
    kubectl("--namespace", where.namespace, "delete", "trainerjob", name)
    return steps[0], complete, complete - steps[-1]


def peer(where: Place, name: str) -> tuple[float, float]:
    """The same of an Indexed Job with torchrun."""
    started, wall = time.monotonic(), time.time()
    apply(*_indexed_job(where, name))
    _wait(where, f"job/{name}", "Complete")
    complete = time.monotonic() - started
    log = kubectl("--namespace", where.namespace, "logs", f"job/{name}", "--timestamps", "--all-pods=true")
    first = min(_time(line) for line in log.splitlines() if "first step" in line)
    kubectl("--namespace", where.namespace, "delete", "job", name)
    return first - wall, complete


def _wait(where: Place, what: str, condition: str) -> None:
    # One process that watches: asking again and again would take the cores that are measured.
    kubectl("--namespace", where.namespace, "wait", what, f"--for=condition={condition}", "--timeout=180s", timeout=190)


def _time(line: str) -> float:
    stamp = next(word for word in line.split() if word.startswith("20") and "T" in word)
    return datetime.fromisoformat(stamp).timestamp()


def _indexed_job(where: Place, name: str) -> tuple[Object, Object]:
    meta = {"name": name, "namespace": where.namespace}
    torchrun = (
        "cp -r /inputs /tmp/inputs && exec /opt/trainyard/bin/python -m torch.distributed.run --nnodes=2 "
        f"--nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint={name}-0.{name}:29400 "
        f"/tmp/inputs/plain_trainer.py /tmp/inputs {STEPS}"
    )
    inputs = {"name": "inputs", "mountPath": "/inputs", "readOnly": True}
    container = {
        "name": "trainer", "image": "localhost/trainer:1", "command": ["sh", "-c", torchrun],
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
        "resources": {"requests": {"cpu": "500m"}},
        "volumeMounts": [MOUNT, inputs, {"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    claim = {"name": "inputs", "persistentVolumeClaim": {"claimName": "inputs", "readOnly": True}}
    pod = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never", "subdomain": name, "enableServiceLinks": False, "containers": [container],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [where.volume, claim, {"name": "tmp", "emptyDir": {}}],
        },
    }  # fmt: skip
    spec = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 0, "template": pod}
    service = {"clusterIP": "None", "selector": {"app": name}, "publishNotReadyAddresses": True}
    return (
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec},
    )


def main(repeats: int = 5) -> None:
    """Print the table and save the numbers."""
    rows: dict[str, list[float]] = {name: [] for name in ("step", "complete", "after", "peer step", "peer complete")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder)
        for each in (folder, *folder.rglob("*")):
            each.chmod(0o755)  # the peer's pods run as another user
        (folder / "plain_trainer.py").write_text(Path(__file__).with_name("plain_trainer.py").read_text())
        with place(folder) as where, claimed(folder, where.namespace, "inputs"):
            for repeat in range(repeats):
                for name, value in zip(("step", "complete", "after"), ours(where, f"ours-{repeat}"), strict=True):
                    rows[name].append(value)
                for name, value in zip(("peer step", "peer complete"), peer(where, f"peer-{repeat}"), strict=True):
                    rows[name].append(value)
                told = ", ".join(f"{name} {values[-1]:.1f} s" for name, values in rows.items())
                print(f"  {repeat + 1}/{repeats}: {told}", file=sys.stderr)
                save("apply", rows)
    median = {name: statistics.median(values) for name, values in rows.items()}
    print(f"{STEPS}-step job of 2 pods on 2 nodes, seconds from kubectl apply, median (range) of {repeats}")
    print(f"{'':<24}{'first step':>22}{'complete':>22}{'complete after training':>26}")
    print(f"{'Indexed Job + torchrun':<24}{spread(rows['peer step']):>22}{spread(rows['peer complete']):>22}{'':>26}")
    print(f"{'TrainerJob':<24}{spread(rows['step']):>22}{spread(rows['complete']):>22}{spread(rows['after']):>26}")
    ratio = median["step"] / median["peer step"]
    print(f"first step {ratio:.2f}× the peer's; goals: ≤ 15 s, and complete ≤ 3 s after training ends")
    save("apply", {**rows, "ratio": ratio})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
