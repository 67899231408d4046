"""Ray Train's control loop, in the driver's own process and with nothing beside it but the workers.

Ray Train has an actor for it, and another one for what workers tell each other. Each is a Python process that has to
import Ray Train before a worker starts (bench/apply, bench/recovery). The driver has nothing else to do meanwhile, and
the workers tell Ray nothing.
"""

import asyncio
import logging
from typing import Any

import ray
from ray.train import Result
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import state, worker_group

from trainyard.launch import priority


def run(given: dict[str, Any]) -> Result:
    """Run an attempt to its end, and return what Ray says of it. Blocks. `given`: what Ray's own controller takes.

    Raises OSError where its folder cannot be made.
    """
    worker_group.SynchronizationActor = _Nobody  # type: ignore[assignment, attr-defined]
    state._shutdown_sync_actor = _Nobody.shutdown  # type: ignore[assignment]
    # All that the workers need of the environment they have from Ray's processes on their node.
    constants.ENV_VARS_TO_PROPAGATE.clear()
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # it raises what it logs
    controller = _Controller(**given)
    asyncio.run(controller.run())  # type: ignore[no-untyped-call]
    return controller.get_result()


class _Nobody:
    """Stands where Ray makes its synchronization actor, which ray.train.report and ray.train.collective would need."""

    @classmethod
    def options(cls, **_: Any) -> type["_Nobody"]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> str:
        return "nobody"

    @staticmethod
    def shutdown(_: Any) -> None:
        pass


class _WorkerGroup(worker_group.WorkerGroup):
    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,  # of which workers ask what they have reported
                **{name: values[index] for name, values in train_context_args.items()},
            )
            for index, worker in enumerate(workers)
        ]
        ray.get(begun)
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    worker_group_cls = _WorkerGroup
    _has_stepped_back = False

    async def _poll_workers(self) -> Any:
        if not self._has_stepped_back:
            priority.step_back()  # they train
            self._has_stepped_back = True
        return await super()._poll_workers()
