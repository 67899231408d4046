"""Forks the ranks of a script with a plain Trainer, everything imported: what bench.kills starts and kills.

Reads {"argv", "log", "ranks"} as JSON lines; answers each with {"pids"}, and {"codes"} when the ranks have ended.
"""

import json
import os
import runpy
import socket
import sys
import traceback
from typing import Any

import deepspeed  # noqa: F401 - imported before the fork, once for all
import transformers.trainer  # noqa: F401


def become(rank: int, request: dict[str, Any], port: int) -> None:
    """Be a rank: under torchrun's variables, with the log as output."""
    log = os.open(str(request["log"]), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torchrun = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"], "LOCAL_WORLD_SIZE": request["ranks"]}
    os.environ |= {name: str(value) for name, value in torchrun.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = request["argv"]
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it was, it is told
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        pids = []
        for rank in range(request["ranks"]):
            pid = os.fork()
            if pid == 0:
                become(rank, request, port)
            pids.append(pid)
        print(json.dumps({"pids": pids}), flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps({"codes": codes}), flush=True)


if __name__ == "__main__":
    main()
