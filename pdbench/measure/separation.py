"""Proof that the phases were separated in a run, from the server's own counters, or why there is none.

A disaggregated server that quietly prefills on its decode workers (a transfer failed, a route was missing) is
just a worse colocated one, and latencies alone do not show it. So the counters are checked against each other
and against the requests: no decode on prefill workers, no prefill on decode workers, one transfer for each
request that needed one, and as many bytes as their prompts have. Each check that fails is a reason. A server
that is not ours keeps no such books, and for it the answer is "no proof available", never "proven".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pdbench.serverside import ServerSide, busy_shares, separated

Status = Literal["proven", "violated", "not available"]
Row = Mapping[str, Any]

IDLE_SHARE = 0.02
"""A device busy for less than this share of the measured window did no work worth its price."""


@dataclass(frozen=True, slots=True)
class Separation:
    """``reasons`` say what was violated or why there is no proof (none when proven); ``idle`` names devices
    that hardly worked, which is no violation but spoils every figure per device."""

    status: Status
    reasons: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.status == "proven") == bool(self.reasons):
            raise ValueError("proven has no reasons, violated and not available have some")

    def document(self) -> dict[str, Any]:
        return {"status": self.status, "reasons": list(self.reasons), "idle_devices": list(self.idle)}

    def warnings(self) -> list[str]:
        """What a reader must be told: violations and idle devices."""
        said = [f"separation violated: {reason}" for reason in self.reasons] if self.status == "violated" else []
        return said + [f"device {name} was busy less than {100 * IDLE_SHARE:g} % of the time" for name in self.idle]


def separation(run: ServerSide, devices: Sequence[str] = (), *, kv_bytes_per_token: int | None = None) -> Separation:
    """The judgement of one run. ``devices``: the arm's, for the busy shares; ``kv_bytes_per_token``: of its model
    (the state's own is used where it is not given; unknown in both leaves bytes unchecked)."""
    idle = idle_devices(run, devices)
    if not run.state:
        return Separation("not available", ("no proof available: the server keeps no books that we can read",), idle)
    if not separated(run.state):
        return Separation("not available", ("nothing to prove: every worker does both phases",), idle)
    if not run.lifecycles:
        return Separation("not available", ("no proof available: no request is in the server's books",), idle)
    size = kv_bytes_per_token or run.state.get("model", {}).get("kv_bytes_per_token")
    reasons = (*_wrong_place(run), *_transfers(run), *_bytes(run, size))
    return Separation("violated" if reasons else "proven", reasons, idle)


def idle_devices(run: ServerSide, devices: Sequence[str]) -> tuple[str, ...]:
    """Devices busy for less than 2 % of the measured window; none where the server does not say."""
    shares = busy_shares([run], list(devices))
    return tuple(name for name, share in zip(devices, shares, strict=False) if share < IDLE_SHARE)


def over_runs(found: Sequence[Separation]) -> Separation:
    """One judgement for all runs of an arm: violated if any is, proven only if all are. A device counts as idle
    if it was idle in every run."""
    if not found:
        return Separation("not available", ("no run",))
    worst: Status = "proven"
    for status in ("not available", "violated"):
        if any(one.status == status for one in found):
            worst = status
    reasons = dict.fromkeys(reason for one in found if one.status == worst for reason in one.reasons)
    idle = tuple(name for name in found[0].idle if all(name in one.idle for one in found))
    return Separation(worst, tuple(reasons), idle)


def _wrong_place(run: ServerSide) -> list[str]:
    """Work of one phase on a worker of the other; fewer prompt tokens on prefill workers than were asked for."""
    prefill, decode = run.state["roles"]["prefill"], run.state["roles"]["decode"]
    found = []
    if prefill.get("decode_steps", 0) or prefill.get("decode_tokens", 0):
        found.append(
            f"prefill workers decoded {prefill.get('decode_tokens', 0)} tokens"
            f" in {prefill.get('decode_steps', 0)} steps"
        )
    if decode.get("prefill_tokens", 0):
        found.append(f"decode workers prefilled {decode['prefill_tokens']} tokens (local prefill)")
    local = sum(
        1 for row in run.lifecycles if _count(row) > 1 and row.get("prefill_worker") == row.get("decode_worker")
    )
    if local:
        found.append(f"{local} requests were prefilled and decoded by one worker")
    asked = sum(int(row["prompt_tokens"]) for row in run.lifecycles if row.get("status") == "ok")
    if prefill.get("prefill_tokens", 0) < asked:
        found.append(f"prefill workers ran {prefill.get('prefill_tokens', 0)} of {asked} prompt tokens")
    return found


def _transfers(run: ServerSide) -> list[str]:
    """One transfer for each request that has a second token; a request that was cut off may have one, too."""
    books = run.state.get("transfers", {})
    count = int(books.get("count", 0))
    needed = sum(1 for row in run.lifecycles if _count(row) > 1)
    cut_off = sum(1 for row in run.lifecycles if _count(row) <= 1 and row.get("status") != "ok")
    found = []
    if count < needed:
        found.append(f"{needed} requests have a second token but {count} transfers are booked")
    elif count > needed + cut_off:
        found.append(f"{count} transfers are booked for {needed} requests with a second token")
    without = sum(1 for row in run.lifecycles if _count(row) > 1 and row.get("transfer_end_ns") is None)
    if without:
        found.append(f"{without} requests were decoded without a transfer")
    if books.get("failed"):
        found.append(f"{books['failed']} transfers failed")
    return found


def _bytes(run: ServerSide, per_token: Any) -> list[str]:
    """Bytes that crossed against the prompts of the requests that crossed."""
    if not per_token:
        return []
    crossed = [row for row in run.lifecycles if row.get("transfer_end_ns") is not None]
    expected = sum(int(row["prompt_tokens"]) for row in crossed) * int(per_token)
    booked = int(run.state.get("transfers", {}).get("bytes", 0))
    if booked == expected:
        return []
    return [f"{booked} bytes crossed, the prompts that crossed have {expected}"]


def _count(row: Row) -> int:
    return int(row.get("output_tokens") or 0)
