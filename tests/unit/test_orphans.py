"""Processes that outlive their parent are ended by the one that adopted them."""

import subprocess
import sys

import psutil

SCRIPT = """
import subprocess, sys
from trainyard.launch import orphans

orphans.adopt()
deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
parent = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {deaf!r}], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL); c.stdout.readline(); print(c.pid)"
orphan = int(subprocess.run([sys.executable, "-c", parent], capture_output=True, check=True).stdout)
orphans.end()
print(orphan)
"""


def test_an_orphan_that_ignores_sigterm_is_ended() -> None:
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert not psutil.pid_exists(int(told.stdout))
