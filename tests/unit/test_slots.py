"""Slots of staging buffers that are used again and again."""

from pathlib import Path

from tests.store.tickets import ticket
from trainyard.checkpoint.staging import Receipt, Tickets
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
