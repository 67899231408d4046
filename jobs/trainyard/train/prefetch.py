"""Random numbers of batches that are fetched ahead of the step that uses them.

A data loader fetches batches before they are needed: accelerate looks one batch ahead, and worker processes fetch
several. A transform or a collator that draws random numbers (augmentation, masking) has then already drawn them for
later batches when a checkpoint is saved. Trainer saves the state of the generators as it is at the save, so a resumed
run would draw other numbers for those batches than the unbroken run drew.

Without worker processes, this process keeps the state from before it fetched the batch ahead. A resumed run fetches
that batch with this state, and then takes the state of the save. With worker processes, each worker sends the state of
its generators along with each batch, and a resumed run starts its workers with the states that they had before the
batch ahead and its successors. What is drawn is what plain Trainer draws.

The saved state fits a loader with the same number of workers, on the same number of ranks, over a data set that is read
by index. Other resumed runs draw other numbers, as under plain Trainer.
"""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from torch.utils.data._utils import fetch as fetchers
from torch.utils.data._utils import pin_memory
from torch.utils.data._utils.worker import _generate_state
from torch.utils.data.dataloader import _DatasetKind, _MultiProcessingDataLoaderIter, _SingleProcessDataLoaderIter

State = dict[str, Any]
"""The state of Python's, NumPy's and PyTorch's generators on the host, by "python", "numpy" and "torch"."""

Start = dict[str, Any]
"""How a worker's generators start: with a State under "state", or as PyTorch seeds them from "seed" and "worker"."""

_RECORD = "_trainyard_workers"
"""Attribute of a loader's iterator that holds its Workers."""


class _Process:
    """What the patched functions of PyTorch look at, in this process."""

    prefetch: "Prefetch | None" = None
    """The training data that is being fetched now; None while other loaders fetch."""
    sends_states = False
    """Whether this is a worker process that sends its states along."""


def states() -> State:
    """The present state of the generators."""
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}


def restore(state: State) -> None:
    """Give the generators a state that states() returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


@dataclass(frozen=True)
class Begin:
    """How the workers of a new iterator begin."""

    starts: list[Start]
    first: int = 0
    """As Workers.first."""
    continues: bool = False
    """Whether the unbroken run has no new workers here, and so draws no seed for them."""


@dataclass
class Workers:
    """The states of the worker processes of one iterator."""

    starts: list[Start]
    """What each worker's generators start an epoch with."""
    persistent: bool
    """Whether the workers serve the next epoch, too."""
    first: int = 0
    """The number of the unbroken run's worker in whose place this iterator's first worker stands."""
    after: dict[int, State] = field(default_factory=dict)
    """The states after the newest batches, by the batch's number in the epoch."""
    received: int = 0
    """Batches of this epoch that have arrived."""

    def take(self, state: State) -> None:
        """Note the state that came with the next batch."""
        self.after[self.received] = state
        self.after.pop(self.received - len(self.starts) - 1, None)
        self.received += 1

    def before(self, batch: int) -> Start:
        """What the worker that fetches a batch has before it. Workers take batches in turn."""
        count = len(self.starts)
        return {"state": self.after[batch - count]} if batch >= count else self.starts[batch]

    def ahead(self) -> "Begin":
        """How workers begin with the batch ahead: the newest that has arrived."""
        count = len(self.starts)
        newest = self.received - 1
        starts = [self.before(newest + worker) for worker in range(count)]
        return Begin(starts, (self.first + newest) % count)

    def next_epoch(self) -> "Begin":
        """How workers begin the next epoch in place of persistent ones, which continue."""
        count = len(self.starts)
        starts: list[Start] = [{}] * count
        for worker in range(count):
            next_batch = self.received + (worker - self.received) % count
            starts[(self.first + worker) % count] = self.before(next_batch)
        return Begin(starts, 0, continues=True)

    def begin_epoch(self) -> None:
        """Persistent workers begin another epoch with the states that they have."""
        self.starts = self.next_epoch().starts
        self.first = 0
        self.after = {}
        self.received = 0


class Prefetch:
    """The training data of one Trainer: which states a checkpoint must keep, and those that a resumed run takes."""

    def __init__(self) -> None:
        self._before: State | None = None
        self._workers: Workers | None = None
        self._resumed: State | None = None
        self._begin: Begin | None = None
        self._load_saved: Callable[[], None] = lambda: None
        self.has_loaded = False
        """Whether the generators have the state of the save already, and more may have been drawn since."""

    @contextlib.contextmanager
    def fetching(self) -> Iterator[None]:
        """Within, what a loader fetches is training data."""
        outer = _Process.prefetch
        _Process.prefetch = self
        try:
            yield
        finally:
            _Process.prefetch = outer

    def tree(self) -> dict[str, Any] | None:
        """What a checkpoint keeps: "before" without worker processes, "ahead" and "next_epoch" with them."""
        if self._workers is not None and self._workers.received:
            tree = {"ahead": asdict(self._workers.ahead())}
            return tree | ({"next_epoch": asdict(self._workers.next_epoch())} if self._workers.persistent else {})
        return {"before": self._before} if self._before is not None else None

    def resume(self, tree: dict[str, Any], in_epoch: bool, load_saved: Callable[[], None]) -> None:
        """Let the first batch be fetched as the unbroken run fetched it.

        `tree` is what tree() returned. `in_epoch` is False when the checkpoint is the last of its epoch. `load_saved`
        gives the generators the state that they had at the save.
        """
        begin = tree.get("ahead" if in_epoch else "next_epoch")
        self._begin = Begin(**begin) if begin is not None else None
        self._resumed = tree.get("before") if in_epoch else None
        self._load_saved = load_saved

    def fetch_here(self, fetch: Callable[[], Any]) -> Any:
        """Fetch a batch in this process; keep the state from before."""
        if self._resumed is None:
            self._before = states()
            return fetch()
        self._before = self._resumed
        self._resumed = None
        restore(self._before)
        batch = fetch()
        self._load_saved()
        self.has_loaded = True
        return batch

    def begin(self, loader: Any) -> Begin | None:
        """How a loader's new workers begin, other than as PyTorch seeds them."""
        begin = self._begin
        self._begin = None
        if begin is None and self._workers is not None and self._workers.persistent:
            begin = self._workers.next_epoch()  # the loader of the resumed epoch was another one
        return begin if begin is not None and len(begin.starts) == loader.num_workers else None

    def watch(self, workers: Workers) -> None:
        """These workers fetch the training data from now on."""
        self._workers = workers


@dataclass(frozen=True)
class _Fetched:
    """A batch on its way from a worker process, with the state of the worker's generators after it."""

    batch: Any
    state: State
    """With an array in place of PyTorch's tensor, for which a queue between processes would open a file."""

    def pin_memory(self) -> "_Fetched":
        """The same in pinned memory. PyTorch's thread calls this for objects that it does not know."""
        return _Fetched(pin_memory.pin_memory(self.batch), self.state)


@dataclass(frozen=True)
class _WorkerStart:
    """A loader's worker_init_fn: the user's or Trainer's own, and the start of the generators."""

    original: Callable[[int], None] | None
    starts: list[Start] | None

    def __call__(self, worker: int) -> None:
        _Process.sends_states = True
        start = self.starts[worker] if self.starts is not None else {}
        if "seed" in start:
            _seed_as(start["seed"], start["worker"])
        if self.original is not None:
            self.original(worker)
        if "state" in start:
            restore(start["state"])


def _seed_as(seed: int, worker: int) -> None:
    """Seed the generators as PyTorch's _worker_loop does for a worker of this number."""
    random.seed(seed + worker)
    torch.manual_seed(seed + worker)
    np.random.seed(_generate_state(seed, worker))


@functools.cache
def apply() -> None:
    """Patch PyTorch's loaders in this process, and so in the workers that it forks."""
    _SingleProcessDataLoaderIter._next_data = _next_data(_SingleProcessDataLoaderIter._next_data)
    _MultiProcessingDataLoaderIter.__init__ = _start_workers(_MultiProcessingDataLoaderIter.__init__)
    _MultiProcessingDataLoaderIter._reset = _begin_epoch(_MultiProcessingDataLoaderIter._reset)
    _MultiProcessingDataLoaderIter._process_data = _process_data(_MultiProcessingDataLoaderIter._process_data)
    fetchers._MapDatasetFetcher.fetch = _fetch(fetchers._MapDatasetFetcher.fetch)


def _next_data(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def next_data(iterator: Any) -> Any:
        if _Process.prefetch is None or iterator._dataset_kind != _DatasetKind.Map:
            return original(iterator)
        return _Process.prefetch.fetch_here(lambda: original(iterator))

    return next_data


def _start_workers(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def start_workers(iterator: Any, loader: Any) -> None:
        prefetch = _Process.prefetch
        if prefetch is None or loader._dataset_kind != _DatasetKind.Map or not loader.in_order:
            original(iterator, loader)
            return
        begin = prefetch.begin(loader)
        own = loader.worker_init_fn
        loader.worker_init_fn = _WorkerStart(own, begin.starts if begin is not None else None)
        seed_is_drawn = begin is None or not begin.continues
        try:
            with torch.random.fork_rng(devices=[], enabled=not seed_is_drawn):
                original(iterator, loader)
        finally:
            loader.worker_init_fn = own
        if begin is None:
            begin = Begin([{"seed": iterator._base_seed, "worker": worker} for worker in range(loader.num_workers)])
        workers = Workers(begin.starts, loader.persistent_workers, begin.first)
        setattr(iterator, _RECORD, workers)
        prefetch.watch(workers)

    return start_workers


def _begin_epoch(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def begin_epoch(iterator: Any, loader: Any, first_iter: bool = False) -> None:
        workers = getattr(iterator, _RECORD, None)
        if workers is not None:
            workers.begin_epoch()
        original(iterator, loader, first_iter)

    return begin_epoch


def _process_data(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def process_data(iterator: Any, data: Any, worker: int) -> Any:
        fetched = original(iterator, data, worker)
        if not isinstance(fetched, _Fetched):
            return fetched
        state = {**fetched.state, "torch": torch.from_numpy(fetched.state["torch"])}
        getattr(iterator, _RECORD).take(state)
        return fetched.batch

    return process_data


def _fetch(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def fetch(fetcher: Any, index: Any) -> Any:
        batch = original(fetcher, index)
        if get_worker_info() is None or not _Process.sends_states:
            return batch
        state = states()
        return _Fetched(batch, {**state, "torch": state["torch"].numpy()})

    return fetch
