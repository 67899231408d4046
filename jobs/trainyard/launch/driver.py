"""The driver: attempt after attempt until the job is complete, stopped, or beyond repair.

An attempt goes: choose the newest committed checkpoint of the lineage, bring it here and verify it, claim
the attempt with the checkpoint that it resumes from (again, under the next number, when the attempt before has
committed a newer one meanwhile), run the group, tell how it ended, decide.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainyard.checkpoint import attempts, catalogue, restore
from trainyard.checkpoint.attempts import Attempt
from trainyard.checkpoint.manifest import Manifest
from trainyard.checkpoint.restore import Seats
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.transfer import CorruptCheckpointError
from trainyard.errors import DiskFullError, JobError, NotFoundError, StorageError
from trainyard.launch.group import Group
from trainyard.launch.node import Node
from trainyard.launch.retry import Ended, decide
from trainyard.plan.batch import divisors, keep_global
from trainyard.plan.plan import Plan, keep_last
from trainyard.protocol.ending import Cause, Ending
from trainyard.spec.manifest import as_manifest
from trainyard.spec.model import Resume, TrainerJob
from trainyard.storage import layout, segments
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store
from trainyard.train.work import Work

Tell = Callable[[dict[str, Any]], None]


@dataclass
class Driver:
    """Runs one job on an initialised Ray."""

    job: TrainerJob
    plan: Plan
    store: Store
    node: Node
    notes: dict[str, Any]
    tell: Tell
    gathered: Callable[[], None] = lambda: None
    """Returns when every worker's node is there, or the run is being stopped."""
    stopping: threading.Event = field(default_factory=threading.Event)
    ranks_here: int = 1
    """Ranks on this machine: what they need of a checkpoint is brought, and so verified, before it is chosen."""
    flush: Callable[[], None] = lambda: None
    """Returns when nothing is left on this machine that can be committed now."""
    uid: str = ""
    """Of the TrainerJob, on a cluster."""

    def run(self) -> Ending:
        """The end of the job: Complete, Stopped, or the failure that was its last."""
        history: list[Ended] = []
        work: Work | None = None
        while True:
            try:
                work = self._next_attempt(first=work is None)
            except DiskFullError as error:
                if work is None:
                    raise
                self.node.make_room(work.attempt + 1)
                history.append(Ended(Ending.of(error), False, time.monotonic()))
                over = self._again(work, history)
                if over is not None:
                    return over
                continue
            if self.stopping.is_set():
                return self._stopped(work)
            ending = self._attempt(work)
            last = self._end(work, ending)
            if last is not None:
                return last
            if ending.outcome == "Stopped":
                # Another node was told to go, and the step is committed: no failure, and no count of it.
                told = {"message": "a worker was asked to leave", "plan": "restarting", "free": True}
                self.tell({"event": "restart", **told})
                continue
            self.tell({"event": "phase", "text": "committing what is staged"})
            self.flush()
            attempts.end(self.store, work.attempt, ending)
            history.append(Ended(ending, self._progressed(work), time.monotonic()))
            over = self._again(work, history)
            if over is not None:
                return over

    def _end(self, work: Work, ending: Ending) -> Ending | None:
        """The end of the job, when an attempt has ended so that there is not to be another; else None."""
        stopping = self.stopping.is_set()
        if ending.outcome == "Stopped" and not ending.step:
            return self._stopped(work)
        if stopping and ending.outcome == "Infrastructure":
            stopped = self._stopped(work)
            if ending.cause is Cause.ASKED:  # before its first step or after its last one
                return stopped
            return replace(stopped, message=f"stopped without a save: {ending.message}")
        return ending if ending.outcome == "Complete" or (ending.outcome == "Stopped" and stopping) else None

    def _again(self, work: Work, history: list[Ended]) -> Ending | None:
        """Wait until it is time to try again after the last failure; the end of the job when it is not."""
        ending = history[-1].ending
        decision = decide(history, self.job.spec.restart)
        if decision.delay is None:
            # Final for the operator too: it would replace the pod, and the same would happen there.
            outcome = "UserError" if decision.final else ending.outcome
            return replace(ending, outcome=outcome, message=decision.reason)
        self.tell({"event": "restart", "message": ending.message, "plan": decision.reason})
        if self.stopping.wait(decision.delay):
            return replace(self._stopped(work), message="stopped between two attempts")
        return None

    def _stopped(self, work: Work) -> Ending:
        newest = work.resumed
        with contextlib.suppress(StorageError):  # it stops without the storage, too
            store = self.store.impatient()
            newest = next(iter(catalogue.committed(catalogue.list_checkpoints(store))), newest)
        step = newest.step if newest else 0
        if newest is not None and newest.attempt == work.attempt:  # in the evaluation at the end, say
            return Ending.stopped("stopped after its last save", step)
        return Ending.stopped("stopped before there was a new step to save", step)

    def _next_attempt(self, first: bool) -> Work:
        Tickets(self.node.tickets).try_again()  # on this node: the storage answers again
        self.flush()  # what the attempt before has staged whole is committed, whatever became of it
        began, known = time.time(), attempts.list_attempts(self.store)
        after = catalogue.newest_attempt(known)
        while True:
            tried = set[CheckpointId]()
            anew = first and self.job.spec.resume is Resume.NEVER and not attempts.began_anew(known, self.uid)
            manifest = None if anew else self._restore(known, tried)
            restored = time.time()
            if manifest is None and self.job.spec.resume is Resume.REQUIRED:
                told = catalogue.none_committed(self.store, catalogue.list_checkpoints(self.store, known))
                raise NotFoundError(f"{told}, and spec.resume is Required")
            changes = self._fit(manifest) if manifest is not None else {}
            resumed = manifest.id if manifest else None
            size = self.plan.world_size.value
            claimed = attempts.claim(self.store, resumed, size, after, anew, self.uid, begun=False, known=known)
            if claimed is None:
                known = attempts.list_attempts(self.store)
                after = catalogue.newest_attempt(known)
                continue
            late = None if anew else self._newest(known, tried)
            if late is not None and (resumed is None or late > resumed):
                # Committed meanwhile, by an attempt that nobody could end. Now that there is a newer one it ends. The
                # one that was claimed never begins: what is committed counts, also when this process dies now.
                after = claimed.number
                continue
            attempts.begin(self.store, claimed)
            with contextlib.suppress(StorageError):  # the next attempt deletes them
                attempts.prune(self.store, claimed)
            if anew:  # the curves of the former run are not this one's, and nothing of it is lost
                segments.clear(self.store, layout.METRICS)
                self.store.delete([entry.path for entry in self.store.list(layout.TRACKERS)])
            if resumed is None and self.job.spec.resume_from is None and not anew and self._set_aside(known):
                self.tell({"event": "note", "text": "no whole checkpoint is left: training begins anew"})
            resumed_from = str(resumed) if resumed else None
            self.tell({"event": "attempt", "attempt": claimed.number, "resumed": resumed_from})
            work = self._work(claimed.number, resumed, changes)
            if manifest is None:
                return replace(work, began=began)
            return replace(work, began=began, restoring=restored - began, global_batch_size=manifest.global_batch_size)

    def _work(self, attempt: int, resumed: CheckpointId | None, changes: dict[str, Any]) -> Work:
        folder = self.node.restored_checkpoint(resumed) if resumed else None
        if resumed is None and self.job.spec.resume_from is not None:
            name = Path(self.job.spec.resume_from.rstrip("/")).name
            folder = self.node.restored / f"adopted-{attempt}" / name
            self.tell({"event": "note", "text": f"beginning with {self.job.spec.resume_from}"})
        return Work(
            manifest=as_manifest(self.job),
            arguments={**self.plan.arguments, **changes},
            run_uri=self.store.uri,
            attempt=attempt,
            staging=str(self.node.staging(attempt)),
            keep_last=keep_last(self.job.spec),
            strategy=self.plan.strategy.value,
            every=self.plan.every,
            in_memory=self.plan.staging.value == "Memory",
            resumed_id=str(resumed) if resumed else None,
            resume_folder=str(folder) if folder is not None else None,
            events=str(self.node.events_socket),
            notes=self.notes,
        )

    def _attempt(self, work: Work) -> Ending:
        workers = self.job.spec.workers
        self.gathered()
        if self.stopping.is_set():
            return self._stopped(work)
        return Group(work, workers.count, workers.processes, workers.gpus).run(self.node)

    def _restore(self, known: list[Attempt], tried: set[CheckpointId]) -> Manifest | None:
        """Bring the newest checkpoint that proves whole; one that does not is set aside, and the next is tried.

        Each time they are listed anew: an attempt that nobody could end may still commit newer ones and delete older.
        """
        while identity := self._newest(known, tried):
            tried.add(identity)
            self.tell({"event": "restore", "id": str(identity)})
            try:
                manifest = self._bring(identity)
                if catalogue.is_there(self.store, identity):  # what is gone cannot be gone on from
                    return manifest
            except NotFoundError:
                continue
            except (CorruptCheckpointError, ValueError) as error:
                if catalogue.set_aside(self.store, identity, str(error)):
                    self.tell({"event": "set_aside", "id": str(identity), "reason": str(error)})
        return None

    def _newest(self, known: list[Attempt], tried: set[CheckpointId]) -> CheckpointId | None:
        found = catalogue.committed(catalogue.list_checkpoints(self.store, known))
        return next((identity for identity in found if identity not in tried), None)

    def _set_aside(self, known: list[Attempt]) -> bool:
        """Whether there were checkpoints, of which none proved whole: now, or in an earlier start."""
        return any(each.state == "SetAside" for each in catalogue.list_checkpoints(self.store, known))

    def _bring(self, identity: CheckpointId) -> Manifest:
        self.node.keep_restored(identity)
        folder = self.node.restored_checkpoint(identity)
        seats = Seats(range(self.ranks_here), self.plan.world_size.value)
        return restore.bring(self.store, Tickets(self.node.tickets), identity, folder, seats)

    def _fit(self, manifest: Manifest) -> dict[str, Any]:
        """The arguments by which this job's processes go on with the batch of a checkpoint. Raises JobError."""
        if manifest.strategy != self.plan.strategy.value:
            raise JobError(
                f"checkpoint {manifest.id} was written with {manifest.strategy} and this job uses "
                f"{self.plan.strategy.value}: set spec.strategy back, or resume: Never to start anew"
            )
        if self.plan.batch is None or manifest.global_batch_size == self.plan.batch.global_size:
            return {}
        kept = keep_global(self.plan.batch, manifest.global_batch_size)
        if kept is None:
            sizes = ", ".join(map(str, divisors(manifest.global_batch_size)))
            raise JobError(
                f"checkpoint {manifest.id} was written with a global batch of {manifest.global_batch_size}, which "
                f"{self.plan.batch.world_size} processes cannot share equally; these can: {sizes}"
            )
        per_device, accumulation = kept
        text = (
            f"a step stays {manifest.global_batch_size} samples, as before: {per_device} a process × {accumulation} "
            f"accumulation × {self.plan.batch.world_size} processes (resume: Never starts anew, with another batch)"
        )
        self.tell({"event": "note", "text": text})
        argument = self.plan.batch.argument(per_device)
        return {"per_device_train_batch_size": argument, "gradient_accumulation_steps": accumulation}

    def _progressed(self, work: Work) -> bool:
        found = catalogue.committed(catalogue.list_checkpoints(self.store))
        return any(identity.attempt == work.attempt for identity in found)


def check_storage(store: Store) -> None:
    """Find a storage that cannot be written now, not at the first checkpoint. Raises StorageError."""
    try:
        store.check_writable()
    except NotFoundError as error:
        raise StorageError(str(error)) from error
