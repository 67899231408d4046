"""Processes that stay in the session of a terminal, but have none themselves."""

import contextlib
import fcntl
import os
import termios


def leave() -> None:
    """Have no terminal from now on, nor what this process starts; where there is none, nothing happens.

    One in the background that asks at a terminal (for a passphrase, say) is stopped, with its whole process group;
    without one it is told that there is none (TIOCNOTTY, ioctl_tty(2)).
    """
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)
