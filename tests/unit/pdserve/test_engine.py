"""One worker's engine, command by command: what it says when, and that a cancel frees everything in any state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pdserve.cache import SlotCache
from pdserve.config import Policy
from pdserve.engine import Engine
from pdserve.executors.virtual import VirtualReceiver, VirtualSender
from pdserve.messages import Cancel, Event, Grant, Prefill, Pull, Pulled, Pushed, Release, Reserve, Reserved, Stepped
from pdserve.scheduler import Scheduler
from pdserve.transfer.base import Places


def engine(policy: Policy, *, slots: int = 2, staging: int = 1) -> Engine:
    scheduler = Scheduler(policy, SlotCache(slots, 100), max_batch=slots, max_batch_tokens=8, token_budget=8)
    return Engine(scheduler, sender=VirtualSender(Places(staging), 4), receiver=VirtualReceiver(), now=lambda: 0)


def request(id: str = "a", prompt: int = 8, max_new: int = 4, eos: tuple[int, ...] = (), min_new: int = 0) -> Prefill:
    return Prefill(id, [1] * prompt, prompt, max_new, min_new, list(eos), 0.0, 0, True)


def step(e: Engine, token: int = 7) -> list[Event]:
    plan = e.begin()
    assert plan is not None
    return e.finish(plan, [token if c.samples else None for c in plan.chunks], 1, 2)


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def test_the_first_token_is_said_before_its_kv_is_copied() -> None:
    e = engine("prefill_only")
    e.handle(request())
    e.handle(Grant("a"))
    assert e.sender is not None
    assert kinds(step(e)) == [Stepped]
    assert e.sender.staged == 0
    assert kinds(e.settle()) == [Pushed]
    assert (e.sender.staged, e.cache.used, e.settle()) == (1, 0, [])


@pytest.mark.parametrize(("max_new", "eos", "min_new", "finish"), [
    (1, (), 0, "length"),
    (4, (7,), 0, "stop"),
    (4, (7,), 1, ""),
    (1, (7,), 0, "stop"),
])  # fmt: skip
def test_a_request_may_end_with_its_first_token(max_new: int, eos: tuple[int, ...], min_new: int, finish: str) -> None:
    e = engine("prefill_only")
    e.handle(request(max_new=max_new, eos=eos, min_new=min_new))
    (stepped,) = step(e)
    assert isinstance(stepped, Stepped)
    assert [emitted.finish for emitted in stepped.emitted] == [finish]
    assert e.live == (0 if finish else 1)


def waiting(e: Engine) -> None:
    e.handle(request())


def halfway(e: Engine) -> None:
    e.handle(request(prompt=20))
    step(e)


def held(e: Engine) -> None:
    e.handle(request())
    step(e)


def held_for_a_staging_place(e: Engine) -> None:
    for id in "ba":
        e.handle(request(id))
        step(e)
    assert kinds(e.handle(Grant("b"))) == [Pushed]
    assert e.handle(Grant("a")) == [], "one place only"


def reserved(e: Engine) -> None:
    assert kinds(e.handle(Reserve(request()))) == [Reserved]


def waiting_for_a_slot(e: Engine) -> None:
    for id in "bca":
        e.handle(Reserve(request(id)))
    assert e.waiting == 1


def adopted(e: Engine) -> None:
    reserved(e)
    assert kinds(e.handle(Pull("a", 0, 0, 1, 8, 7))) == [Pulled]


def decoding(e: Engine) -> None:
    adopted(e)
    step(e)


@pytest.mark.parametrize(
    ("policy", "reach"),
    [
        ("prefill_only", waiting),
        ("prefill_only", halfway),
        ("prefill_only", held),
        ("prefill_only", held_for_a_staging_place),
        ("decode_only", reserved),
        ("decode_only", waiting_for_a_slot),
        ("decode_only", adopted),
        ("decode_only", decoding),
    ],
)
def test_a_cancel_frees_everything_in_any_state(policy: Policy, reach: Callable[[Engine], None]) -> None:
    e = engine(policy)
    reach(e)
    for id in "abc":
        e.handle(Cancel(id))
    e.handle(Release(0, 1))
    assert e.sender is not None
    assert (e.live, e.cache.used, e.running, e.waiting, e.sender.staged) == (0, 0, 0, 0, 0)
    assert e.begin() is None
    assert e.settle() == []
    assert e._held == {}
    assert e._granted == e._handoff == e._fresh == set()
