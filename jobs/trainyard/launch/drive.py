"""From a checked manifest to the end of its job, on a Ray that is there: what `trainyard run` and the agent share."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from trainyard.launch import runfile
from trainyard.launch.node import Node
from trainyard.plan.identity import identity
from trainyard.plan.notes import notes
from trainyard.plan.plan import Plan
from trainyard.spec.manifest import as_manifest
from trainyard.spec.model import Resume, TrainerJob
from trainyard.storage import layout
from trainyard.storage.store import Store
from trainyard.train.work import Result

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

    def run(self) -> Result:
        """Run the job to its end, or find that it is complete. Blocks.

        Raises TrainyardError for what is wrong before anything is trained.
        """
        from trainyard.launch.driver import Driver, check_storage

        described = notes(self.plan)
        check_storage(self.store)
        who = identity(self.job.spec)
        before = runfile.read(self.store)
        manifest = as_manifest(self.job)
        if before is not None:
            runfile.check_same(self.store, before, who, self.job.name)
            if (done := self._done(before["manifest"], manifest)) is not None:
                return self._ended(done)
        runfile.write(self.store, manifest, who, described)
        for warning in self.plan.warnings:
            self.tell({"event": "note", "text": f"warning: {warning}"})
        with self.connect() as gathered:
            store = self.store.patient()
            driver = Driver(
                self.job, self.plan, store, self.node, described, self.tell, gathered, self.stopping,
                self.ranks_here, self.flush,
            )  # fmt: skip
            return self._ended(driver.run())

    def _ended(self, result: Result) -> Result:
        if result.outcome == "Complete":
            self.tell({"event": "complete", "url": result.message, "step": result.step})
        return result

    def _done(self, before: dict[str, Any], now: dict[str, Any]) -> Result | None:
        from trainyard.launch.driver import complete

        final = complete(self.store)
        if final is None or not _same_training(before, now) or self.job.spec.resume is Resume.NEVER:
            return None
        self.tell({"event": "note", "text": f"already complete at step {final.step}: nothing to do"})
        self.tell({"event": "final", "url": self.store.url(layout.FINAL), "metrics": final.metrics})
        return Result("Complete", self.store.url(layout.FINAL), final.step)


def _same_training(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a finished run is what the manifest asks for; other epochs, say, make it go on."""
    keys = ("trainingArguments", "strategy", "accelerate")
    return all(before["spec"].get(key) == now["spec"].get(key) for key in keys)
