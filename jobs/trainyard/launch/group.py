"""One attempt as a Ray Train run: a group of Ray workers, each of which keeps one training process.

Ray places the workers, tells them who they are, and takes the whole group down when one fails. Ray's own
restarts are off (max_failures=0): its failure policy cannot tell a bad data set from a lost node, and the
next attempt must be claimed and its checkpoint chosen first. That is the driver's work.

DataParallelTrainer rather than TorchTrainer: with the process group made in our own process Ray's workers
need no torch, which saves its import in each of them (bench/startup).
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray._raylet import PlacementGroupID
from ray.experimental import internal_kv
from ray.train import RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.state_manager import StateManagerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util.placement_group import PlacementGroup

from trainyard.checkpoint import attempts, restore
from trainyard.checkpoint.catalogue import set_aside
from trainyard.checkpoint.restore import Seats
from trainyard.checkpoint.staging import Tickets
from trainyard.checkpoint.transfer import CorruptCheckpointError
from trainyard.errors import DiskFullError, JobError, StorageError, TrainyardError
from trainyard.launch import causes, controller, raynode
from trainyard.launch.causes import RankFailedError
from trainyard.launch.hang import HangWatch
from trainyard.launch.logs import LogUpload
from trainyard.launch.node import Node
from trainyard.launch.rayenv import POLL_SECONDS
from trainyard.plan.inputs import lacks
from trainyard.protocol.ending import Cause, Ending
from trainyard.storage import layout
from trainyard.storage.disk import room_on
from trainyard.train import heartbeat
from trainyard.train.sources import is_remote, local_folder
from trainyard.train.work import Work

_LOOK_AGAIN_SECONDS = 0.02


class _AllGpusOfTheNode(Backend):
    """torch picks its GPU by LOCAL_RANK among all that it sees."""

    share_cuda_visible_devices = True


@dataclass
class _Processes(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        """See ray.train.backend.BackendConfig."""
        return _AllGpusOfTheNode


class _NoAutoscaler(FixedScalingPolicy):
    """Asks nobody for nodes: the operator has made them, or this machine is all there is."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to register."""

    def _maybe_send_resource_request(self) -> None:
        """Nothing to renew; and without a client nothing is cancelled."""


class _Trainer(DataParallelTrainer):
    """Without the actors of which there is no use here: each is a Python process to start (bench/recovery).

    No Ray data sets are passed, no nodes are asked for, places are given back before the next attempt, and Ray's own
    table of runs wants a controller that is an actor.
    """

    def _initialize_and_run_controller(self, **given: Any) -> ray.train.Result:
        policy = _NoAutoscaler(given["scaling_policy"].scaling_config)
        return controller.run({**given, "scaling_policy": policy})

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback, StateManagerCallback)
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, unused)]


@dataclass(frozen=True)
class Group:
    """The group of processes of one attempt."""

    work: Work
    workers: int
    processes: int
    gpus: int

    def run(self, node: Node) -> Ending:
        """Run the attempt to its end, and say how it ended. Blocks; needs an initialised Ray."""
        world_size = self.workers * self.processes
        _give_back_places()
        trainer = _Trainer(
            _keep_process,
            train_loop_config={"work": self.work.__dict__},
            scaling_config=ScalingConfig(
                num_workers=world_size, use_gpu=self.gpus > 0, resources_per_worker=self._resources()
            ),
            run_config=RunConfig(
                name=f"{self.work.job.name}-{self.work.attempt}",
                storage_path=str(node.folder / "ray-train"),
                # A node that is drained, or lost while the group starts, ends the attempt as any other loss does.
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
            ),
            backend_config=_Processes(),
        )
        try:
            trainer.fit()
        except WorkerGroupError as error:
            return causes.root_cause(error)
        except (TrainingFailedError, ray.exceptions.RayError, OSError) as error:
            return causes.of_ray(error)
        # Rank 0 may have been on another node: it has kept the end of its attempt in storage.
        return attempts.read_end(self.work.store, self.work.attempt)

    def _resources(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": self.gpus / self.processes} if self.gpus else {"CPU": 1}


def _give_back_places() -> None:
    """Remove what an attempt that did not end in good order has left: Ray keeps the groups as long as the driver."""
    for identity, group in ray.util.placement_group_table().items():
        if group["state"] != "REMOVED":
            ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(identity))))


def _keep_process(config: dict[str, Any]) -> None:
    """In a Ray worker: have a training process started, watch it, and raise when it fails."""
    work, context, node = Work(**config["work"]), ray.train.get_context(), Node.here()
    work = on_node(work, node)
    seats, mine = _seated(work, context)
    rank, staging = seats.index(mine), Path(work.staging)
    here = [index for index, seat in enumerate(seats) if seat.worker == mine.worker]
    work_file = staging / f"work-{rank}.json"
    try:
        with room_on(staging):
            staging.mkdir(parents=True, exist_ok=True)
            _bring_checkpoint(work, node, Seats(here, len(seats)))
            if context.get_local_rank() == 0:
                node.sweep(work.attempt)  # what they had staged was looked at by now
                raynode.let_watch()
            work.write(work_file)
    except DiskFullError as error:
        node.make_room(work.attempt)
        raise RankFailedError(Ending.of(error)) from error
    log = staging / f"rank-{rank}.log"
    request = {"work": str(work_file), "log": str(log), "env": _environment(seats, mine, len(here))}
    alone = len(here) == len(seats)
    watch = HangWatch(heartbeat.file(staging, rank), work.job.spec.restart.hang_seconds, alone)
    with LogUpload(lambda: work.store, layout.log_path(work.attempt, rank), log), watch:
        ended = run_process(node, request, watch)
    ending = ended if isinstance(ended, Ending) else causes.died(ended, log)
    if watch.verdict:
        ending = Ending.fault(Cause.HANG, watch.verdict, watch.step)
    if ending.outcome in ("Complete", "Stopped"):
        if rank == 0:
            attempts.end(work.store, work.attempt, ending)
        return
    if causes.waits_for_others(ending):
        time.sleep(4 * POLL_SECONDS)  # let the rank that failed first be seen first
    raise RankFailedError(replace(ending, message=f"rank {rank}: {ending.message}"))


def _environment(seats: list["_Seat"], mine: "_Seat", local_size: int) -> dict[str, str]:
    """The variables of torchrun, which accelerate, DeepSpeed and user code read, and the GPUs that Ray has given."""
    shared = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    nodes = sorted({seat.worker for seat in seats})
    return {
        **{name: os.environ[name] for name in shared if name in os.environ},
        "RANK": str(seats.index(mine)),
        "WORLD_SIZE": str(len(seats)),
        "LOCAL_RANK": str(mine.local_rank),
        "LOCAL_WORLD_SIZE": str(local_size),
        "GROUP_RANK": str(nodes.index(mine.worker)),
        "GROUP_WORLD_SIZE": str(len(nodes)),
        "MASTER_ADDR": seats[0].address,
        "MASTER_PORT": str(seats[0].port),
    }


@dataclass(frozen=True, order=True)
class _Seat:
    """Where a training process is, in the order of ranks: Ray's own order begins on any node."""

    worker: int
    local_rank: int
    ray_rank: int
    address: str
    port: int


def _seated(work: Work, context: Any) -> tuple[list[_Seat], _Seat]:
    """The seats of all ranks in their order, and this process's own. A collective: every Ray worker calls it."""
    worker = int(os.environ.get("TRAINYARD_INDEX", "0"))
    address, port = ray.util.get_node_ip_address(), _free_port()
    mine = _Seat(worker, context.get_local_rank(), context.get_world_rank(), address, port)
    key = f"trainyard/{work.run_uri}/{work.attempt}/"
    internal_kv._internal_kv_put(f"{key}{mine.ray_rank}", json.dumps(asdict(mine)))
    size = context.get_world_size()
    while len(taken := internal_kv._internal_kv_list(key)) < size:
        # Ray's store makes no event; of many ranks each asks it less often. When one of them dies Ray ends the others.
        time.sleep(_LOOK_AGAIN_SECONDS * (1 + size / 10))
    return sorted(_Seat(**json.loads(internal_kv._internal_kv_get(each))) for each in taken), mine


def on_node(work: Work, node: Node) -> Work:
    """The work, with what is a node's own."""
    buffers = node.buffers(work.attempt, work.in_memory)
    return replace(work, tickets=str(node.tickets), bell=str(node.bell), buffers=str(buffers))


def _bring_checkpoint(work: Work, node: Node, seats: Seats) -> None:
    """Have what some ranks need of the checkpoint to resume from on their node."""
    if work.resume_folder is None:
        return
    node.restored.mkdir(parents=True, exist_ok=True)
    with (node.restored / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of the node's processes brings it, the others wait
        if work.resumed is None:
            _adopt(work, Path(work.resume_folder))
            return
        node.keep_restored(work.resumed)
        try:
            restore.bring(work.store, Tickets(node.tickets), work.resumed, Path(work.resume_folder), seats)
        except (CorruptCheckpointError, ValueError) as error:
            set_aside(work.store, work.resumed, str(error))
            message = f"checkpoint {work.resumed} is corrupt and was set aside ({error})"
            raise RankFailedError(Ending.fault(Cause.STORAGE, message)) from error
        except (StorageError, JobError) as error:
            raise RankFailedError(Ending.of(error)) from error


def _adopt(work: Work, folder: Path) -> None:
    """Have a checkpoint that is not of this run in a folder."""
    given = str(work.job.spec.resume_from)
    try:
        source = Path(local_folder(given, work.job.spec.storage))
        if words := lacks(source):
            raise JobError(f"{given} {words}")
        _take(given, source, folder)
    except DiskFullError:
        raise  # it is this node's fault, and not what is named
    except TrainyardError as error:
        ending = Ending.of(error)
        raise RankFailedError(replace(ending, message=f"spec.resumeFrom: {ending.message}")) from error


def _take(given: str, source: Path, folder: Path) -> None:
    """Verify a checkpoint that was brought to this node, and have it in a folder."""
    try:
        restore.adopt(source, folder)
    except (CorruptCheckpointError, ValueError) as error:
        message = f"spec.resumeFrom: {given} is damaged ({error}): name another checkpoint"
        if not is_remote(given):
            raise RankFailedError(Ending.user_error(message)) from error
        shutil.rmtree(source, ignore_errors=True)  # a copy: it may be that which is damaged
        raise RankFailedError(Ending.fault(Cause.STORAGE, message)) from error


def run_process(node: Node, request: dict[str, Any], watch: HangWatch | None = None) -> Ending | int:
    """Have the node's warm process start a training process, and wait for its end.

    Returns its ending, or its exit status when it died without one.
    """
    # Ray kills this worker by ending its process; the closed connection then ends the training process.
    status = -signal.SIGKILL
    ending: Ending | None = None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(node.warm_socket))
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in connection.makefile():
                report = json.loads(line)
                if "outcome" in report:
                    ending = Ending.of_document(report)
                status = report.get("status", status)
                if watch is not None and "pid" in report:
                    watch.pid = report["pid"]
        except OSError as error:
            message = (
                f"the process that starts the training processes is gone (killed; out of memory?): {error.strerror}"
            )
            return ending or Ending.fault(Cause.SIGNAL, message)
    return ending if ending is not None else status


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
