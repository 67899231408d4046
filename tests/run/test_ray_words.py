"""What Ray says of a worker that it lost: a real cluster of two raylets says it."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from trainyard.protocol import foreign
from trainyard.protocol.ending import Cause

CODE = """
    import os, signal, sys
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)

    @ray.remote(num_cpus=1)
    class Worker:
        def pid(self):
            return os.getpid()

        def wait(self):
            import time
            time.sleep(600)

    worker = Worker.remote()
    pid = ray.get(worker.pid.remote())
    waiting = worker.wait.remote()
    if sys.argv[1] == "worker":
        os.kill(pid, signal.SIGKILL)
    else:
        cluster.remove_node(node, allow_graceful=False)
    try:
        ray.get(waiting, timeout=120)
    except Exception as error:
        print("SAID:", str(error).replace(chr(10), " "))
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.parametrize(("lost", "cause"), [("worker", Cause.WORKER), ("node", Cause.NODE)])
def test_ray_says_what_it_lost(lost: str, cause: Cause) -> None:
    env = {**os.environ, "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CODE), lost],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    (said,) = [line for line in out.splitlines() if line.startswith("SAID:")]
    loss = foreign.ray_loss(said)
    assert loss is not None, said
    assert loss[0] is cause or "temporarily unavailable" in said, said
