"""From a checked manifest to the end of its job, on a Ray that is there: what `trainyard run` and the agent share."""

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from trainyard.checkpoint import attempts
from trainyard.checkpoint.attempts import Attempt
from trainyard.checkpoint.catalogue import manifest_in
from trainyard.checkpoint.manifest import Manifest
from trainyard.errors import JobError, NotFoundError
from trainyard.launch import runfile
from trainyard.launch.node import Node
from trainyard.plan.cautions import nothing_to_train
from trainyard.plan.identity import identity, training
from trainyard.plan.notes import notes
from trainyard.plan.plan import Plan
from trainyard.protocol.ending import Ending
from trainyard.spec.manifest import as_manifest
from trainyard.spec.model import Resume, TrainerJob
from trainyard.storage import layout
from trainyard.storage.store import Store

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Drive:
    """What a job needs to be driven."""

    job: TrainerJob
    plan: Plan
    store: Store
    node: Node
    tell: Tell
    connect: Callable[[], AbstractContextManager[Callable[[], None]]]
    """Connects to Ray; gives what waits until every worker's node is there."""
    flush: Callable[[], None]
    """Returns when nothing is left on this machine that can be committed now."""
    ranks_here: int
    """Ranks on this machine."""
    stopping: threading.Event = field(default_factory=threading.Event)
    uid: str = ""
    """Of the TrainerJob, on a cluster."""

    def run(self) -> Ending:
        """Run the job to its end, or find that it is complete. Blocks.

        Raises TrainyardError for what is wrong before anything is trained.
        """
        from trainyard.launch.driver import Driver, check_storage

        if self.plan.batch is not None and self.plan.batch.total_steps == 0:
            raise JobError(nothing_to_train(self.plan.batch))
        described = notes(self.plan)
        check_storage(self.store)
        who = identity(self.job.spec)
        before = runfile.read(self.store)
        if before is not None:
            runfile.check_same(self.store, before, who, self.job.name)
            if (final := complete(self.store, self.job, self.uid)) is not None:
                return self._ended(self._told_complete(final))
        runfile.write(self.store, as_manifest(self.job), who, described)
        for warning in self.plan.warnings:
            self.tell({"event": "note", "text": f"warning: {warning}"})
        with self.connect() as gathered:
            store = self.store.patient()
            driver = Driver(
                self.job, self.plan, store, self.node, described, self.tell, gathered, self.stopping,
                self.ranks_here, self.flush, self.uid,
            )  # fmt: skip
            return self._ended(driver.run())

    def _ended(self, result: Ending) -> Ending:
        if result.outcome == "Complete":
            self.tell({"event": "complete", "url": result.message, "step": result.step})
        return result

    def _told_complete(self, final: Manifest) -> Ending:
        self.tell({"event": "note", "text": f"already complete at step {final.step}: nothing to do"})
        self.tell({"event": "final", "url": self.store.url(layout.FINAL), "metrics": final.metrics})
        return Ending.complete(self.store.url(layout.FINAL), final.step)


def complete(store: Store, job: TrainerJob, uid: str = "") -> Manifest | None:
    """The manifest of the final model, when the run has ended with what the job asks for."""
    known = attempts.list_attempts(store)
    if not known or (final := _ended_with(store, known)) is None:
        return None
    # run.json may be of a later start that asked for other training, and was refused.
    before = runfile.read(store)
    trained = final.training or (training(before["manifest"]) if before is not None else "")
    if trained != training(as_manifest(job)):
        return None
    return final if job.spec.resume is not Resume.NEVER or attempts.began_anew(known, uid) else None


def _ended_with(store: Store, known: list[Attempt]) -> Manifest | None:
    """The manifest of the run's final model, if the newest attempt ended with one."""
    try:
        end = attempts.read_end(store, known[-1].number)
        final = manifest_in(store, layout.FINAL)
    except (NotFoundError, ValueError, TypeError, json.JSONDecodeError):
        return None
    there = {entry.path: entry.size for entry in store.list(layout.FINAL)}
    whole = all(there.get(f"{layout.FINAL}/{entry.path}") == entry.size for entry in final.files)
    return final if whole and end.outcome == "Complete" and final.attempt == known[-1].number else None
