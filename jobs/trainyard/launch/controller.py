"""Ray Train's controller, and the process that waits for the next attempt to need one.

A controller lives as long as an attempt. To start its process and to import what it needs takes seconds of a restart
(bench/recovery), so the next one's is started while the attempt runs, and told what to control when there is one.
"""

import threading
from typing import Any

import ray
from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.train import Result
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution import controller as ray_train

_START_AFTER = 5.0
"""Seconds into an attempt: by then its own processes have started, and nothing waits for the cores."""


class TrainController(ray_train.TrainController):
    """Ray's, but made first, and told later what it controls."""

    def __init__(self) -> None:
        """Nothing yet."""

    def begin(self, given: dict[str, Any]) -> None:
        """Begin with what Ray's own constructor takes."""
        # Workers too: all that they need of the environment they have from Ray's processes on their node.
        constants.ENV_VARS_TO_PROPAGATE.clear()
        super().__init__(**given)


class Controllers:
    """Makes controllers on this node, one ahead."""

    def __init__(self) -> None:
        self._next: ActorHandle[TrainController] | None = None

    def run(self, given: dict[str, Any]) -> Result:
        """Have a controller, which is given what Ray's own takes, run an attempt to its end. Raises what it raises."""
        ahead = threading.Timer(_START_AFTER, self._prepare)
        ahead.daemon = True
        ahead.start()
        try:
            controller = self._begun(given)
            ray.get(controller.run.remote())
            result: Result = ray.get(controller.get_result.remote())
            return result
        finally:
            # Not one moment later: a call after Ray's end would begin it anew.
            ahead.cancel()
            ahead.join(_START_AFTER)

    def _begun(self, given: dict[str, Any]) -> Any:
        waiting, self._next = self._next, None
        if waiting is not None:
            try:
                ray.get(waiting.begin.remote(given))
            except RayActorError:
                pass  # it was killed while it waited
            else:
                return waiting
        controller = _start()
        ray.get(controller.begin.remote(given))
        return controller

    def _prepare(self) -> None:
        self._next = self._next or _start()


def _start() -> Any:
    # Without an environment of its own, which it has from Ray's processes: one that Ray has ready will do.
    here = {RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    return ray.remote(num_cpus=0, label_selector=here)(TrainController).remote()
