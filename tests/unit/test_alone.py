"""A process that trains alone."""

import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from tests.unit.jobs import job
from trainyard.spec.manifest import as_manifest
from trainyard.train import arguments
from trainyard.train.work import Work


def test_it_makes_no_group_and_takes_one_gpu_of_those_that_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # with PyTorch's check by NVML the two would do
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    chosen = {"per_device_train_batch_size": 4, "report_to": "none"}
    work = Work(as_manifest(job()), chosen, "s3://runs/job", 1, str(tmp_path), 3, "ddp")
    try:
        made = arguments.make(work)
        assert (made.n_gpu, made.train_batch_size, made.world_size) == (1, 4, 1)
        assert not torch.distributed.is_initialized()
        assert os.environ["LOCAL_RANK"] == "0", "code of the user's may read it"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
