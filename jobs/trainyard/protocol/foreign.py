"""Failures that other libraries report only in English: the one place that decides on retries by their messages.

Messages of storage providers become sentences in `storage/messages`, those of kubectl in `cluster/kubectl`. Each entry
here has a test in tests/unit/test_foreign.py or tests/run/test_ray_words.py in which the library itself says it. Where
a library raises a type of its own, the type decides (`train/failures`), not the words.
"""

import re

from trainyard.protocol.ending import Cause

_GLOO = "gloo/transport/"
"""In the file name that begins each error of gloo's transport: a peer closed, reset or did not answer in time.
gloo raises RuntimeError for all of them."""
_LOADER = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (is killed by signal|exited unexpectedly)")
"""torch.utils.data raises RuntimeError when a process of a DataLoader dies."""
_NO_SPACE = "No space left"
"""strerror(ENOSPC), which libraries of C++ and Rust copy into errors of their own."""
_FAILED_WRITE = ("PytorchStreamWriter", "unexpected pos")
"""PyTorch's zip writer, when a write failed. It does not say why; the disk does."""
_NO_HEAD = "Unrecognized configuration class"
"""transformers, of an Auto class that has no model for a configuration."""
_NOT_READY = "connection was not ready"
"""obstore, of a connection that was reset before a request went over it. It gives up at once."""

_RAY_LOSSES = (
    ("node was terminated", Cause.NODE, "the node of a worker is gone, or Ray's processes there"),
    ("worker process has died", Cause.WORKER, "the Ray worker of a rank died (killed; out of memory?)"),
    ("actor is temporarily unavailable", Cause.WORKER, "the connection to the Ray worker of a rank broke"),
)
"""What Ray says of an actor that died, the most telling words first; its own message is half a page. It says the last
of a node, too, when the connection breaks before the node is known to be gone."""


def is_peer_lost(text: str) -> bool:
    """Whether gloo says that another rank went away."""
    return _GLOO in text


def is_loader_killed(text: str) -> bool:
    """Whether torch says that a process of a DataLoader died."""
    return _LOADER.search(text) is not None


def is_disk_full(text: str) -> bool:
    """Whether a library says that a disk is full."""
    return _NO_SPACE in text


def is_write_failed(text: str) -> bool:
    """Whether PyTorch says that it could not write a file, for a reason that it does not tell."""
    return any(mark in text for mark in _FAILED_WRITE)


def is_model_without_head(text: str) -> bool:
    """Whether transformers says that an Auto class knows no model for a configuration."""
    return _NO_HEAD in text


def is_never_sent(text: str) -> bool:
    """Whether obstore gave up a request before it was sent."""
    return _NOT_READY in text


def ray_loss(text: str) -> tuple[Cause, str] | None:
    """What Ray lost, and how to say it in a line; None when Ray speaks of something else."""
    for mark, cause, words in _RAY_LOSSES:
        if mark in text:
            return cause, words
    return None
