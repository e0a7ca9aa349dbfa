"""``/admin/state`` and the lifecycle records, from the router's books: one form for real and simulated runs."""

from __future__ import annotations

from typing import Any

from pdserve.router import Request, Router, Worker

COUNTERS = ("prefill_tokens", "decode_tokens", "decode_steps", "steps", "busy_ns")


def roles(workers: list[Worker]) -> dict[str, dict[str, int]]:
    """Counters summed over the workers of each role. A prefill worker that decodes would show here."""
    summed: dict[str, dict[str, int]] = {}
    for worker in workers:
        counters = summed.setdefault(worker.role, {"workers": 0, **dict.fromkeys(COUNTERS, 0)})
        counters["workers"] += 1
        for key in COUNTERS:
            counters[key] += getattr(worker, key)
    return summed


def worker_row(worker: Worker) -> dict[str, Any]:
    row: dict[str, Any] = {"index": worker.index, "role": worker.role, "alive": worker.alive}
    return {**row, "slots": worker.slots, "live": worker.live, **{k: getattr(worker, k) for k in COUNTERS}}


def router_state(router: Router) -> dict[str, Any]:
    """Roles, workers, queues and transfers as plain data."""
    waiting = sum(1 for r in router.live.values() if r.place is not None)
    return {
        "roles": roles(router.workers),
        "workers": [worker_row(w) for w in router.workers],
        "queues": {"prefill": len(router.queue), "handoff": waiting},
        "live": len(router.live),
        "transfers": {
            "count": router.transfers,
            "bytes": router.transfer_bytes,
            "released": router.released,
            "failed": router.failed_transfers,
        },
    }


def clear_counters(router: Router) -> None:
    """Starts the books afresh between two runs; live requests are untouched."""
    router.transfers = router.transfer_bytes = router.released = router.failed_transfers = 0
    router.ended.clear()
    for worker in router.workers:
        for key in COUNTERS:
            setattr(worker, key, 0)


def lifecycle(request: Request) -> dict[str, Any]:
    """One ended request as a row of ``/admin/requests`` (all times ns)."""
    stamps = request.stamps
    return {
        "request_id": request.id,
        "status": request.status,
        "reason": request.reason,
        "arrive_ns": stamps.arrive_ns,
        "prefill_start_ns": stamps.prefill_start_ns,
        "prefill_end_ns": stamps.prefill_end_ns,
        "transfer_start_ns": stamps.transfer_start_ns,
        "transfer_end_ns": stamps.transfer_end_ns,
        "decode_admit_ns": stamps.decode_admit_ns,
        "end_ns": stamps.end_ns,
        "prompt_tokens": request.work.prompt_len,
        "output_tokens": len(stamps.token_ns),
        "prefill_worker": request.prefill_worker,
        "decode_worker": request.decode_worker if request.work.handoff else request.prefill_worker,
        "kv_bytes": stamps.kv_bytes,
        "token_ns": stamps.token_ns,
    }
