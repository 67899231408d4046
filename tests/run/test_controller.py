"""What is replaced of Ray Train is there to be replaced: it is none of Ray's public interface."""

import inspect

import pytest
from ray._private.parameter import RayParams
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

from trainyard.launch import causes, controller, raynode

_METHOD = "_init_train_context_on_workers"


def test_rays_worker_group_calls_what_ours_replaces() -> None:
    ray_s, ours = (getattr(each, _METHOD) for each in (worker_group.WorkerGroup, controller._WorkerGroup))
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(ray_s).parameters)
    assert f"self.{_METHOD}(" in inspect.getsource(worker_group.WorkerGroup._init_train_context)
    given = set(inspect.signature(RayTrainWorker.init_train_context).parameters)
    named = {"train_run_context", "distributed_context", "synchronization_actor", "storage_context", "worker_callbacks"}
    assert given >= named | {"controller_actor"}
    assert "SynchronizationActor.options(" in inspect.getsource(worker_group.WorkerGroup._start_impl)
    assert "_shutdown_sync_actor(" in inspect.getsource(state.WorkerGroupState.shutdown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "The actor died.\n\tThe actor is dead because its worker process has died. Worker exit type: …",
            "Ray worker of a",
        ),
        ("The actor died.\n\tThe actor's node was terminated: health check failed", "node of a worker is gone"),
    ],
)
def test_a_loss_is_told_in_a_line(text: str, words: str) -> None:
    ending = causes.of_ray(RuntimeError(text))
    assert words in ending.message
    assert "\n" not in ending.message
    assert ending.host_failed


def test_other_words_of_ray_are_shown_in_a_line() -> None:
    ending = causes.of_ray(RuntimeError("a\n\tb"))
    assert ending.message == "Ray: b"
    assert not ending.host_failed


def test_the_head_starts_no_server_for_rays_client() -> None:
    parameters = RayParams(ray_client_server_port=10001)
    raynode.before_start(parameters, head=True)
    assert parameters.ray_client_server_port is None
