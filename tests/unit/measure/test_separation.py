"""Proof of separation: proven only when every count agrees, and never for a server whose books we cannot read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pdbench.measure.separation import Separation, over_runs, separation
from pdbench.serverside import ServerSide
from tests.unit.measure.serverhelp import MIXED, SPLIT, lifecycle, plan, simulated, step

PER_TOKEN = 16
WORKERS = [{"index": 0, "device": "cpu:0"}, {"index": 1, "device": "cpu:1"}]
STATE: dict[str, Any] = {
    "workers": WORKERS,
    "roles": {
        "prefill": {"prefill_tokens": 300, "decode_tokens": 0, "decode_steps": 0},
        "decode": {"prefill_tokens": 0, "decode_tokens": 4, "decode_steps": 3},
    },
    "transfers": {"count": 2, "bytes": 200 * PER_TOKEN, "failed": 0},
    "model": {"kv_bytes_per_token": PER_TOKEN},
}
# Two requests that crossed, and one whose answer was one token: it had no reason to.
ROWS = (
    lifecycle("a", [10, 20, 30], transfer=(11, 12), workers=(0, 1)),
    lifecycle("b", [10, 20, 30], transfer=(11, 12), workers=(0, 1)),
    lifecycle("c", [10], workers=(0, 1)),
)
STEPS = (step(0, 0, 50), step(1, 50, 100))
GOOD = ServerSide(STATE, ROWS, STEPS, (0, 100_000_000))
DEVICES = ["cpu:0", "cpu:1"]


def test_proven() -> None:
    assert separation(GOOD, DEVICES) == Separation("proven")
    assert separation(GOOD, DEVICES).warnings() == []


def changed(edit: Callable[[dict[str, Any], list[dict[str, Any]]], None]) -> ServerSide:
    state, rows = copy.deepcopy(STATE), copy.deepcopy(list(ROWS))
    edit(state, rows)
    return replace(GOOD, state=state, lifecycles=tuple(rows))


def put(role: str, **counters: int) -> Callable[[dict[str, Any], list[dict[str, Any]]], None]:
    return lambda state, rows: state["roles"][role].update(counters)


def book(**counters: int) -> Callable[[dict[str, Any], list[dict[str, Any]]], None]:
    return lambda state, rows: state["transfers"].update(counters)


def row(number: int, **values: Any) -> Callable[[dict[str, Any], list[dict[str, Any]]], None]:
    return lambda state, rows: rows[number].update(values)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (put("prefill", decode_steps=1, decode_tokens=3), "prefill workers decoded 3 tokens in 1 steps"),
        (put("prefill", decode_steps=1), "prefill workers decoded 0 tokens in 1 steps"),
        (put("decode", prefill_tokens=7), "decode workers prefilled 7 tokens (local prefill)"),
        (put("prefill", prefill_tokens=299), "prefill workers ran 299 of 300 prompt tokens"),
        (book(count=1), "2 requests have a second token but 1 transfers are booked"),
        (book(count=3), "3 transfers are booked for 2 requests with a second token"),
        (book(failed=1), "1 transfers failed"),
        (book(bytes=200 * PER_TOKEN - 1), "3199 bytes crossed, the prompts that crossed have 3200"),
        (row(0, decode_worker=0), "1 requests were prefilled and decoded by one worker"),
        (
            lambda state, rows: (rows[0].update(transfer_end_ns=None), state["transfers"].update(bytes=1600))[0],
            "1 requests were decoded without a transfer",
        ),
    ],
)
def test_each_violation_is_seen_alone(edit: Any, reason: str) -> None:
    found = separation(changed(edit), DEVICES)
    assert found.status == "violated"
    assert found.reasons == (reason,)
    assert found.warnings() == [f"separation violated: {reason}"]


def test_a_request_cut_off_after_its_transfer_is_no_violation() -> None:
    def cut(state: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[2].update(status="cancelled", transfer_end_ns=5)
        state["transfers"].update(count=3, bytes=300 * PER_TOKEN)

    assert separation(changed(cut)).status == "proven"


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (ServerSide(), "no proof available"),
        (replace(GOOD, lifecycles=()), "no proof available"),
        (ServerSide({"roles": {"mixed": {}}}, ROWS), "both phases"),
    ],
)
def test_no_proof_is_not_proof(run: ServerSide, word: str) -> None:
    found = separation(run)
    assert found.status == "not available"
    assert word in found.reasons[0]
    assert found.warnings() == []


def test_bytes_need_the_size_of_a_token() -> None:
    def forget(state: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        del state["model"]
        state["transfers"]["bytes"] = 1

    assert separation(changed(forget)).status == "proven"
    assert separation(changed(forget), kv_bytes_per_token=PER_TOKEN).status == "violated"


@pytest.mark.parametrize(("busy", "idle"), [(1.9, ("cpu:1",)), (2.0, ()), (0.0, ("cpu:1",))])
def test_idle_devices(busy: float, idle: tuple[str, ...]) -> None:
    found = separation(replace(GOOD, steps=(step(0, 0, 50), step(1, 0, busy))), DEVICES)
    assert found.idle == idle
    assert found.status == "proven"
    assert len(found.warnings()) == len(idle)


PROVEN, VIOLATED, ABSENT = Separation("proven"), Separation("violated", ("x",)), Separation("not available", ("y",))


@pytest.mark.parametrize(
    ("runs", "status", "reasons"),
    [
        ([PROVEN, PROVEN], "proven", ()),
        ([PROVEN, ABSENT], "not available", ("y",)),
        ([ABSENT, VIOLATED, PROVEN], "violated", ("x",)),
        ([VIOLATED, VIOLATED], "violated", ("x",)),
        ([], "not available", ("no run",)),
    ],
)
def test_over_runs(runs: list[Separation], status: str, reasons: tuple[str, ...]) -> None:
    found = over_runs(runs)
    assert (found.status, found.reasons) == (status, reasons)


def test_a_device_is_idle_only_if_it_always_was() -> None:
    once = [Separation("proven", idle=("cpu:0", "cpu:1")), Separation("proven", idle=("cpu:1",))]
    assert over_runs(once).idle == ("cpu:1",)


@pytest.mark.parametrize(("status", "reasons"), [("proven", ("x",)), ("violated", ()), ("not available", ())])
def test_a_status_and_its_reasons_agree(status: Any, reasons: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="reasons"):
        Separation(status, reasons)


def test_on_the_virtual_clock() -> None:
    cost = {"prefill_ms_per_token": 0.1, "decode_ms_per_step": 5}
    requests = plan((0, 200, 5), (10, 300, 1), (20, 100, 3))
    split = simulated(SPLIT, cost, requests)
    size = split.side.state["transfers"]["bytes"] // 300
    assert separation(split.side, DEVICES, kv_bytes_per_token=size) == Separation("proven")
    assert separation(split.side, DEVICES, kv_bytes_per_token=size + 1).status == "violated"
    assert separation(simulated(MIXED, cost, requests).side, ["cpu:0"]).status == "not available"
