"""Files of torch.save's content without a pickle: everything comes back as it was, and nothing runs."""

import collections
import hashlib
import io
import random
import shutil
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from trainyard.checkpoint.staging import Tickets
from trainyard.train import tensorfile
from trainyard.train.capture import Capture
from trainyard.train.copier import Copier, Copy
from trainyard.train.leftovers import Leftovers
from trainyard.train.slots import Slots
from trainyard.train.tensorfile import Elsewhere, Layout, UnsupportedError


def write(layout: Layout, file: Path) -> Path:
    data = torch.zeros(layout.size, dtype=torch.uint8)
    data[: len(layout.header)] = torch.frombuffer(bytearray(layout.header), dtype=torch.uint8)
    for at, tensor in layout.tensors:
        Copy(tensor, data[at : at + tensor.nbytes]).now()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.numpy().tobytes())
    return file


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool(torch.equal(one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, dict):
        return type(one) is type(other) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def optimizer_state() -> dict[str, Any]:
    model = torch.nn.Linear(5, 7)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize(
    "item",
    [
        optimizer_state(),
        {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()},
        collections.OrderedDict({1: torch.ones(3, dtype=torch.bfloat16), (2, "a"): {3, 4}}),
        [torch.zeros(0), torch.tensor(2.5), torch.Size([2, 3]), torch.float16, b"bytes", None, True, np.float64(0.5)],
        {"transposed": torch.arange(6.0).reshape(2, 3).T, "flag": torch.tensor([True, False])},
    ],
    ids=["optimizer", "rng", "keys", "kinds", "views"],
)
def test_everything_comes_back_as_it_was(item: Any, tmp_path: Path) -> None:
    file = write(tensorfile.lay_out("optimizer.pt", item), tmp_path / "optimizer.pt")
    assert tensorfile.is_tree(file)
    assert same(item, tensorfile.load(file))
    assert same(item, tensorfile.load(file, mapped=True))
    load_file(file)  # and any reader of safetensors can open it


def test_deepspeeds_plain_objects_come_back_and_others_are_refused(tmp_path: Path) -> None:
    from deepspeed.utils.tensor_fragment import fragment_address

    file = write(tensorfile.lay_out("x.pt", {"at": fragment_address(numel=3, start=4)}), tmp_path / "x.pt")
    assert tensorfile.load(file)["at"] == fragment_address(numel=3, start=4)
    with pytest.raises(UnsupportedError, match=r"x\.pt: thing is a"):
        tensorfile.lay_out("x.pt", {"thing": Path()})
    name = b"deepspeed.utils.tensor_fragment:fragment_address"
    evil = file.read_bytes().replace(name, b"subprocess:Popen".ljust(len(name)))
    (tmp_path / "evil.pt").write_bytes(evil)
    with pytest.raises(ValueError, match="only objects of"):
        tensorfile.load(tmp_path / "evil.pt")


def test_tensors_that_another_file_holds_are_not_held_twice(tmp_path: Path) -> None:
    weights, elsewhere = {"a": torch.ones(1000), "b": torch.zeros(3)}, Elsewhere()
    write(tensorfile.lay_out_weights("model.safetensors", weights, elsewhere), tmp_path / "model.safetensors")
    layout = tensorfile.lay_out("global_step1/states.pt", {"module": weights}, elsewhere)
    assert layout.size < 1000
    file = write(layout, tmp_path / "global_step1/states.pt")
    assert same({"module": weights}, tensorfile.load(file))


def test_a_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    file = write(tensorfile.lay_out("x.pt", {"a": torch.ones(1000)}), tmp_path / "x.pt")
    file.write_bytes(file.read_bytes()[:-1])
    for mapped in (False, True):
        with pytest.raises(ValueError, match="cut short"):
            tensorfile.load(file, mapped)


def test_what_is_mapped_takes_no_memory_until_it_is_looked_at_and_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    file = write(tensorfile.lay_out("x.pt", {"a": torch.ones(50_000_000), "b": torch.ones(3)}), tmp_path / "x.pt")
    content, before = hashlib.sha256(file.read_bytes()).digest(), psutil.Process().memory_info().rss
    loaded = tensorfile.load(file, mapped=True)
    assert loaded["a"][-1] == 1
    assert psutil.Process().memory_info().rss - before < 50_000_000
    loaded["b"] += 1
    many = write(tensorfile.lay_out("y.pt", {index: torch.ones(1) for index in range(100)}), tmp_path / "y.pt")
    opened = psutil.Process().num_fds()
    kept = tensorfile.load(many, mapped=True)
    assert psutil.Process().num_fds() < opened + 10 < opened + len(kept)
    assert hashlib.sha256(file.read_bytes()).digest() == content


def test_copies_go_on_beside_and_are_whole_when_the_tensors_are_taken_back() -> None:
    copier, ends = Copier(), list[bool]()
    for turn in range(20):
        sources = [torch.full((1_500_000,), float(turn)), torch.full((3,), float(turn))]
        targets = [torch.zeros(source.nbytes, dtype=torch.uint8) for source in sources]
        copier.start([Copy(*each) for each in zip(sources, targets, strict=True)], ends.append)
        copier.release()
        before = [target.clone() for target in targets]
        for source in sources:
            source.add_(1)  # the optimizer's step
        for source, target in zip(sources, before, strict=True):
            assert torch.equal(target.view(source.dtype), torch.full_like(source, turn))
    copier.settle()
    assert ends == [True] * 20


def test_a_round_that_is_over_holds_no_tensor() -> None:
    copier, source = Copier(), torch.zeros(100_000)
    copier.start([Copy(source, torch.zeros(source.nbytes, dtype=torch.uint8))], lambda intact: None)
    copier.settle()
    known = weakref.ref(source)
    del source
    assert known() is None


def test_what_no_such_file_can_hold_is_taken_as_torch_saves_it(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "buffers", tmp_path / "buffers", Tickets(tmp_path / "tickets"), rank=1)
    slot = slots.take()
    assert slot is not None
    capture, item = Capture(tmp_path / "root", slot, slots, set()), {"since": Fraction(1, 3)}
    with capture.of_torch_save():
        torch.save(item, tmp_path / "root/optimizer_1.pt")
    (file,) = capture.files
    assert file.path == "optimizer_1.pt"
    with Path(file.source).open("rb") as stream:
        assert torch.load(io.BytesIO(stream.read(file.size)), weights_only=False) == item


def test_what_a_run_of_before_has_left_in_the_folder_is_no_part_of_a_save_and_goes(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "buffers", tmp_path / "buffers", Tickets(tmp_path / "tickets"), rank=0)
    slot, root = slots.take(), tmp_path / "checkpoint-6"
    assert slot is not None
    (root / "deep").mkdir(parents=True)
    left = [root / name for name in ("model.safetensors", "deep/left", "vocab.json")]
    for file in left:
        file.write_text("of before")
    leftovers = Leftovers(tmp_path)
    again, since = tmp_path / "vocab.json", left[2].stat().st_ctime_ns
    shutil.copy2(left[2], again)
    while left[2].stat().st_ctime_ns == since:  # the kernel's clock ticks every few milliseconds
        shutil.copy2(again, left[2])  # the same words, size and times
    (root / "new").write_text("new")
    leftovers.remove(root)
    capture = Capture(root, slot, slots, set())
    capture.take_written()
    assert [file.path for file in capture.files] == ["new", "vocab.json"]
    assert sorted(file.name for file in root.rglob("*")) == ["deep", "new", "vocab.json"]


def test_a_tensor_that_changes_while_it_is_copied_is_noticed() -> None:
    copier, ends, source = Copier(), list[bool](), torch.zeros(3)

    class Slow(Copy):
        """A copy made element by element, while which somebody writes to another tensor of its round."""

        def now(self) -> None:
            super().now()
            source.add_(1)

    crosswise = torch.ones(2, 2).t()
    copies = [Copy(source, torch.zeros(source.nbytes, dtype=torch.uint8))]
    copies.append(Slow(crosswise, torch.zeros(crosswise.nbytes, dtype=torch.uint8)))
    copier.start(copies, ends.append)
    copier.settle()
    assert ends == [False]
