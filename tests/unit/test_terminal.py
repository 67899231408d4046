"""A process in the background of a terminal cannot be stopped by it."""

import os
import pty
import subprocess
import sys

ASKS = """
import os, sys
from trainyard.launch import terminal

terminal.leave()
try:
    os.open("/dev/tty", os.O_RDWR)
except OSError:
    print(os.getsid(0) == int(sys.argv[1]))
"""
OWNS = """
import fcntl, os, subprocess, sys, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.close(os.open("/dev/tty", os.O_RDWR))
ended = subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())], process_group=0, timeout=60)
os.close(os.open("/dev/tty", os.O_RDWR))
sys.exit(ended.returncode)
"""


def test_who_leaves_the_terminal_stays_in_its_session_and_the_others_keep_it() -> None:
    own, terminal = pty.openpty()
    try:
        command = [sys.executable, "-c", OWNS, ASKS]
        ended = subprocess.run(command, stdin=terminal, capture_output=True, text=True, start_new_session=True)
    finally:
        os.close(own)
        os.close(terminal)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr
