"""Small stored runs for tests: two arms under one plan, with the server's own stamps, written as any run is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdbench.measure.metrics import summarise
from pdbench.measure.records import RequestRecord, to_frames
from pdbench.measure.slo import parse_objectives
from pdbench.store import RunStore
from tests.unit.documents import VALID, change

SLO = ["ttft p90 <= 400ms", "tpot p90 <= 40ms", "tbt p90 <= 40ms", "worst_gap p90 <= 100ms"]
MS = 1_000_000
NAME = "20260102T030405Z-chat-1a2b3c4"
T0 = 5_000 * MS


def records(
    arm: str, pair: int, requests: int, tokens: int, *, handed: bool, failed: Sequence[int] = ()
) -> list[RequestRecord]:
    """Every 150 ms a request; where it is not handed over, every third stream stalls while the next prompt runs."""
    found = []
    for i in range(requests):
        due = T0 + 150 * i * MS
        stall = 0 if handed or i % 3 else 90
        first = due + (80 + 10 * (i % 5)) * MS
        stamps = [first + (20 * k + (stall if k > 3 else 0)) * MS for k in range(tokens)]
        broke = i in failed
        found.append(
            RequestRecord(
                index=i,
                scheduled_ns=due,
                sent_ns=due,
                end_ns=stamps[-1],
                status="error" if broke else "ok",
                error="<b>broke</b>" if broke else "",
                warmup=i < 2,
                planned_prompt_tokens=512,
                planned_output_tokens=tokens,
                prompt_tokens=512,
                output_tokens=tokens,
                chunk_ns=[] if broke else stamps,
                chunk_tokens=[] if broke else [1] * tokens,
                token_source="continuous_usage",
                request_id=f"n-{pair}-{arm}-{i}",
            )
        )
    return found


def server(found: Sequence[RequestRecord], *, handed: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lifecycles and steps of these requests on two devices."""
    lifecycles, steps = [], []
    for one in found:
        if not one.chunk_ns:
            continue
        first, decoder = one.chunk_ns[0], 1 if handed else one.index % 2
        prefiller = 0 if handed else decoder
        row = {
            "request_id": one.request_id,
            "status": "ok",
            "arrive_ns": one.scheduled_ns + MS,
            "prefill_start_ns": first - 60 * MS,
            "prefill_end_ns": first - MS,
            "end_ns": one.chunk_ns[-1],
            "prompt_tokens": 512,
            "output_tokens": len(one.chunk_ns),
            "prefill_worker": prefiller,
            "decode_worker": decoder,
            "kv_bytes": 1 << 20,
            "token_ns": one.chunk_ns,
            "transfer_start_ns": first + MS if handed else None,
            "transfer_end_ns": first + 5 * MS if handed else None,
            "decode_admit_ns": first + 6 * MS if handed else first,
        }
        lifecycles.append(row)
        steps.append(_step(prefiller, first - 60 * MS, first - MS, 512))
        steps += [_step(decoder, at - 15 * MS, at - MS, 0) for at in one.chunk_ns[1:]]
    return lifecycles, steps


def _step(worker: int, start: int, end: int, prompt: int) -> dict[str, Any]:
    return {
        "worker": worker,
        "device": f"cpu:{worker}",
        "start_ns": start,
        "end_ns": end,
        "prefill_tokens": prompt,
        "decode_tokens": 0 if prompt else 1,
        "sequences": 1,
        "context_tokens": 512,
    }


def write_run(
    parent: Path,
    *,
    arms: Sequence[str] = ("colocated", "disaggregated"),
    requests: int = 14,
    tokens: int = 8,
    pairs: int = 2,
    stamps: bool = True,
    seal: bool = True,
    failed: Sequence[int] = (),
    name: str = NAME,
    **changes: Any,
) -> Path:
    """A run's folder under ``parent``; ``changes`` go into its document."""
    path = parent / name
    store = RunStore(path)
    entries: dict[str, Any] = {}
    for number, arm in enumerate(arms):
        all_records: list[RequestRecord] = []
        for pair in range(pairs):
            found = records(arm, pair, requests, tokens, handed=number > 0, failed=failed)
            requests_, tokens_ = to_frames(found, arm, pair)
            store.append_run(requests_, tokens_)
            if stamps:
                store.write_server(*server(found, handed=number > 0), arm=arm, pair=pair)
            all_records += found
        entries[arm] = summarise(*to_frames(all_records[:requests], arm, 0), parse_objectives(SLO), 2) | {
            "validity": VALID
        }
    if seal:
        store.seal(manifest(name, arms[0]), document(name, entries, arms) | changes)
    return path


def manifest(name: str, base: str) -> dict[str, Any]:
    argv = ["/opt/bin/pdbench", "compare", "--slo", "ttft p90 <= 400ms", "it's"]
    return {
        "kind": "compare",
        "run": name,
        "argv": argv,
        "config": {"base": base, "seed": 0},
        "plan_hashes": ["ab" * 32],
    }


def document(name: str, entries: dict[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "schema_version": 1,
        "kind": "compare" if len(arms) > 1 else "run",
        "run": name,
        "slo": SLO,
        "pairs": 2,
        "workload": {"name": "chat", "arrivals": {"process": "poisson", "rate": 2.0}, "num_requests": 12, "warmup": 2},
        "fingerprint": {
            "cpu_model": "a CPU",
            "memory_bytes": 1 << 34,
            "versions": {"numpy": "2"},
            "arms": {arms[0]: {"model": "m"}},
        },
        "validity": VALID,
        "arms": entries,
        "sentence": "At 2 req/s one arm meets the SLO more often.",
    }
    if len(arms) > 1:
        metrics = (("joint_attainment", "better", -0.2), ("ttft_p90", "worse", 0.3), ("e2e_p90", "not resolved", None))
        found["comparisons"] = [
            {**change(head, metric, verdict, effect), "base": arms[0]}
            for head in arms[1:]
            for metric, verdict, effect in metrics
        ]
    return found


def search_document(
    name: str = "20260102T040000Z-chat-1a2b3c4", arms: Sequence[str] = ("colocated", "disaggregated")
) -> dict[str, Any]:
    """A search over three rates, two seeds each."""

    def trial(rate: float, seed: int, joint: float) -> dict[str, Any]:
        return {
            "pair": seed,
            "rate": rate,
            "seed": seed,
            "joint": joint,
            "scheduled": 40,
            "ok": 40,
            "failed": 0,
            "ttft_p90_ms": 300.0,
            "used": True,
            "validity": VALID,
            "seconds": 20.0,
        }

    runs = [
        trial(rate, seed, joint - 0.02 * seed)
        for rate, joint in ((2.0, 1.0), (3.0, 0.93), (4.5, 0.6))
        for seed in (0, 1)
    ]
    goodput = {
        "where": "resolved",
        "rate": 3.1,
        "interval": [2.9, None],
        "half_width": None,
        "lower_bound": 2.9,
        "certified": False,
        "claimed": 3.1,
        "share": 0.9,
        "level": 0.95,
        "runs": 6,
        "seeds": 2,
        "per_device": {"rate": 1.55, "claimed": 1.55, "interval": [1.45, None]},
    }
    arm = {"devices": 2, "goodput": goodput, "stop": "budget used", "used": 6, "left_out": 0, "runs": runs}
    return {
        "schema_version": 1,
        "kind": "search",
        "run": name,
        "slo": SLO,
        "share": 0.9,
        "validity": VALID,
        "base": arms[0],
        "certify": False,
        "workload": {"name": "chat", "arrivals": {"process": "poisson", "rate": 2.0}, "num_requests": 40, "warmup": 2},
        "fingerprint": {},
        "arms": dict.fromkeys(arms, arm),
        "sentence": "They carry as much.",
        "ratios": [
            {
                "base": arms[0],
                "head": arms[1],
                "per_device": True,
                "level": 0.95,
                "ratio": 1.0,
                "interval": [0.9, 1.1],
                "effect": 0.0,
                "seeds": 2,
                "verdict": "not resolved",
            }
        ],
    }
