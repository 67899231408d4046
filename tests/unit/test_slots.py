"""Slots of staging buffers that are used again and again."""

from pathlib import Path

import pytest

from tests.store.tickets import ticket
from trainyard.checkpoint.staging import Receipt, Tickets
from trainyard.errors import DiskFullError
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import open_store
from trainyard.train.slots import MAX_SLOTS, Slots


def test_a_slot_is_used_again_without_a_word_to_the_disk(tmp_path: Path) -> None:
    """To remove a file that a busy disk is writing takes until it is written, and training would stand still."""
    tickets, store = Tickets(tmp_path / "tickets"), open_store(str(tmp_path / "run"))
    slots = Slots(tmp_path / "buffers", tmp_path / "buffers", tickets, rank=0)
    for step in range(1, MAX_SLOTS + 1):
        slot, left = slots.take(), ticket(store, tmp_path / "parts", step=step)
        assert slot is not None
        slot.holds = left.id
        tickets.leave(left)
    assert slots.take() is None
    assert len(tickets.waiting()) == MAX_SLOTS
    oldest, *others = (group[0].id for group in tickets.waiting())
    tickets.give_receipt(oldest, Receipt("Committed"))
    before = {file: file.stat().st_mtime_ns for file in tickets.folder.iterdir()}
    again = slots.take()
    assert again is slots.slots[0]
    assert again.holds is None
    assert {file: file.stat().st_mtime_ns for file in tickets.folder.iterdir()} == before
    assert [group[0].id for group in tickets.waiting()] == others, "nobody may send what is being overwritten"
    slots.withdraw()
    assert {file.name for file in before} - {file.name for file in tickets.folder.iterdir()} == {
        f"{oldest}-rank-0.json"
    }


def test_where_a_second_slot_has_no_room_the_first_is_used_alone(tmp_path: Path, small_disk: Path) -> None:
    """What a rank cannot stage is known before the others have begun to save with it."""
    tickets = Tickets(tmp_path / "tickets")
    slots = Slots(small_disk / "memory", small_disk / "disk", tickets, rank=0)
    first = slots.take()
    assert first is not None
    for index, size in enumerate((1_000_000, 3_000_000)):
        slots.room(first, index, size)
    first.holds = CheckpointId(1, 1)
    assert slots.free(), "it is not known yet"
    assert slots.take() is None
    assert (slots.cramped, slots.moved, slots.free()) == (True, False, False)
    assert {file.name for file in small_disk.rglob("buffer-*")} == {"buffer-0", "buffer-1"}, "the first one's"
    tickets.give_receipt(first.holds, Receipt("Committed"))
    assert slots.free()
    assert slots.take() is first
    with pytest.raises(DiskFullError, match="free space there"):
        slots.room(first, 2, 6_000_000)
