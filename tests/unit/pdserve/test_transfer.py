"""KV arrives bit-equal, or not at all: every connector must pass these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdserve.model.config import ModelShape
from pdserve.model.kv import KVSlab
from pdserve.transfer.base import Places, StaleTransfer
from pdserve.transfer.connectors import choose, make_receiver, make_sender
from pdserve.transfer.memory import SharedMemory

SHAPE = ModelShape(vocab=32, d_model=16, layers=3, heads=4, kv_heads=2, head_dim=4, d_ff=16, max_len=64)


def slab(dtype: torch.dtype, seed: int | None = None) -> KVSlab:
    kv = KVSlab(SHAPE, 3, 64, dtype)
    if seed is not None:
        kv.data.copy_(torch.randn(kv.data.shape, generator=torch.Generator().manual_seed(seed)))
    return kv


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("positions", [1, 7, 64])
def test_kv_arrives_bit_equal_and_touches_nothing_else(dtype: torch.dtype, positions: int) -> None:
    source, target = slab(dtype, 1), slab(dtype, 2)
    before = target.data.clone()
    sender, receiver = make_sender("shm", source, 2), make_receiver("shm", target)
    receiver.connect(0, sender.outbox())
    ticket = sender.push(2, positions)
    assert ticket is not None
    assert ticket.nbytes == positions * source.bytes_per_token
    source.data.zero_()  # the slot may be reused as soon as push returns
    receiver.pull(0, ticket.place, ticket.generation, 1, positions)
    fresh = slab(dtype, 1)
    assert torch.equal(target.view(1, positions), fresh.view(2, positions))
    target.view(1, positions).copy_(before[:, :, 1, :, :positions])
    assert torch.equal(target.data, before), "no other position was touched"
    sender.close()
    receiver.close()


def test_a_place_given_up_and_reused_is_never_taken_for_the_old_one() -> None:
    source, target = slab(torch.float32, 1), slab(torch.float32)
    sender, receiver = make_sender("shm", source, 1), make_receiver("shm", target)
    receiver.connect(0, sender.outbox())
    old = sender.push(0, 5)
    assert old is not None
    assert sender.push(1, 5) is None, "one staging place only"
    sender.release(old.place, old.generation)
    new = sender.push(1, 5)
    assert new is not None
    with pytest.raises(StaleTransfer):
        receiver.pull(0, old.place, old.generation, 0, 5)
    assert not target.data.any(), "a stale pull writes nothing"
    sender.release(old.place, old.generation)
    assert sender.staged == 1, "a late release of the old use frees nothing"
    sender.close()
    receiver.close()


def test_every_staging_place_of_many_has_its_own_counter_and_bytes() -> None:
    source, target = slab(torch.bfloat16, 1), slab(torch.bfloat16)
    sender, receiver = make_sender("shm", source, 600), make_receiver("shm", target)
    receiver.connect(0, sender.outbox())
    tickets = [sender.push(n % 3, 1 + n % 64) for n in range(600)]
    assert sender.push(0, 1) is None
    for n, ticket in enumerate(tickets):
        assert ticket is not None
        receiver.pull(0, ticket.place, ticket.generation, n % 2, 1 + n % 64)
        assert torch.equal(target.view(n % 2, 1 + n % 64), source.view(n % 3, 1 + n % 64))
    sender.close()
    receiver.close()


def test_shared_memory_has_no_name_to_leave_behind() -> None:
    memory = SharedMemory.create("pdserve-test", 1 << 16)
    assert not [p for p in Path("/dev/shm").iterdir() if "pdserve-test" in p.name]
    other = SharedMemory.open(memory.outbox("shm"))
    memory.map[5] = 7
    assert other.map[5] == 7
    assert other.size == 1 << 16
    memory.close()
    other.close()


@pytest.mark.parametrize("devices", [["cpu:0", "cpu:1"], ["cpu:0", "cuda:0"]])
@pytest.mark.parametrize("asked", ["auto", "shm", "cuda"])
def test_cpu_devices_always_use_shared_memory(asked: str, devices: list[str]) -> None:
    assert choose(asked, devices) == "shm"


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 3))
def test_places_are_never_in_two_hands(ops: list[int], count: int) -> None:
    places = Places(count)
    held: list[tuple[int, int]] = []
    for op in ops:
        if op < 6:
            place = places.take()
            assert (place is None) == (len(held) == count)
            if place is not None:
                assert place not in [p for p, _ in held]
                held.append((place, places.generations[place]))
        elif held:
            ticket = held.pop(op % len(held))
            assert places.give_back(*ticket)
            assert not places.give_back(*ticket), "a second release does nothing"
        assert places.used == len(held)
