"""The controller of the next attempt, which waits: with a real Ray, and a stand-in for what is controlled."""

import tempfile
import threading
from collections.abc import Iterator

import pytest
import ray

from trainyard.launch import controller
from trainyard.launch.controller import Controllers


class StandIn:
    """Says who it is, where Ray's controller would train."""

    def begin(self, given: dict[str, int]) -> None:
        self.attempt = given["attempt"]

    def run(self) -> None:
        pass

    def wait_for_ever(self) -> None:
        threading.Event().wait()

    def get_result(self) -> tuple[int, str]:
        return self.attempt, ray.get_runtime_context().get_actor_id() or ""


@pytest.fixture
def controllers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Controllers]:
    monkeypatch.setattr(controller, "TrainController", StandIn)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # the paths of its sockets have little room
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=short)
        yield Controllers()
        ray.shutdown()


def test_an_attempt_takes_the_controller_that_waits_and_one_that_was_killed_costs_nothing(
    controllers: Controllers,
) -> None:
    controllers._prepare()
    waiting = controllers._next
    assert waiting is not None
    assert controllers.run({"attempt": 1}) == (1, waiting._actor_id.hex())
    controllers._prepare()
    killed = controllers._next
    assert killed is not None
    ray.kill(killed)
    gone = killed.wait_for_ever.remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(gone, timeout=30)
    attempt, who = controllers.run({"attempt": 2})
    assert attempt == 2
    assert who not in (waiting._actor_id.hex(), killed._actor_id.hex())
