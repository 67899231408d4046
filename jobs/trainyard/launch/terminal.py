"""Giving up the controlling terminal, and staying in its session."""

import contextlib
import fcntl
import os
import termios


def leave() -> None:
    """Detach this process and its children from the terminal, if there is one (TIOCNOTTY, ioctl_tty(2)).

    The kernel stops a background process that reads from its terminal (to ask for a passphrase, say), and its whole
    process group. Without a terminal the read fails at once.
    """
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)
