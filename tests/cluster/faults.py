"""Faults for a job on the bed, and what they cost: done for real, measured on the job's own status and storage."""

import json
import subprocess
import time
from collections.abc import Callable

from tests.bed.kubectl import kubectl, read
from tests.cluster.jobs import status_of
from tests.costs import COSTS, Cost

# Signals every process of a pod whose command line, or whose parent's, holds a text. Runs in the pod: only it sees them.
_KILL = """
import os, signal, sys
def line(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read().replace("\\0", " ")
    except OSError:
        return ""
def parent(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]
    except OSError:
        return "0"
found = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != str(os.getpid())
         and (sys.argv[1] in line(pid) if sys.argv[2] == "self" else sys.argv[1] in line(parent(pid)))]
assert found, "no such process"
for pid in found:
    os.kill(int(pid), signal.Signals[sys.argv[3]])
"""

_KILLED_TOO = 137
"""What kubectl exec ends with when the pod ends, and the one that kills with it."""


def kill_in(namespace: str, pod: str, text: str, whose: str = "self", signal: str = "SIGKILL") -> None:
    """A signal to the processes of a pod with a text in their command line, or in their parent's (`parent`)."""
    python = ["/opt/trainyard/bin/python", "-c", _KILL, text, whose, signal]
    try:
        kubectl("--namespace", namespace, "exec", pod, "--", *python)
    except subprocess.CalledProcessError as error:
        if error.returncode != _KILLED_TOO:
            raise


def measure(namespace: str, fault: str, inflict: Callable[[], None], seconds: float = 150) -> Cost:
    """Inflict a fault on a running job, and follow it until a new attempt has made a step."""
    before = status_of(namespace)
    committed, attempt = before["checkpoint"], before["attempt"]
    start = time.monotonic()
    inflict()
    noticed, duplicates = 0.0, 0
    while True:
        now, status = time.monotonic() - start, status_of(namespace)
        assert now < seconds, f"{fault}: not running again after {seconds:.0f} s: {json.dumps(status)}"
        assert status["state"] != "Failed", f"{fault}: {status['message']}"
        noticed = noticed or (now if (status["state"], status["attempt"]) != ("Running", attempt) else 0.0)
        pods = [
            pod["metadata"]["labels"]["trainyard.dev/index"]
            for pod in read(f"/api/v1/namespaces/{namespace}/pods?fieldSelector=status.phase%3DRunning")["items"]
        ]
        duplicates = max(duplicates, len(pods) - len(set(pods)))
        if status["attempt"] > attempt and status["state"] == "Running":
            resumed = status["attempts"][-1].get("resumedFrom", "00000000")
            lost = max(0, int(committed[:8]) - int(resumed[:8]))
            COSTS.append(Cost(fault, noticed, now, lost, duplicates))
            return COSTS[-1]
        time.sleep(0.25)
