"""Summary documents for tests, made by hand."""

from __future__ import annotations

from typing import Any

VALID: dict[str, Any] = {"status": "VALID", "reasons": []}
INVALID: dict[str, Any] = {
    "status": "INVALID",
    "reasons": [{"message": "requests left late", "remedy": "free a core"}],
}
SLO = ["ttft p90 <= 400ms", "worst_gap p90 <= 100ms"]


def spread(p90: float | None) -> dict[str, float | None]:
    return {"p50": None if p90 is None else p90 / 2, "p90": p90, "p99": None if p90 is None else 2 * p90}


def arm(joint: float, ttft: float | None = 300.0, gap: float | None = 50.0) -> dict[str, Any]:
    return {
        "devices": 2,
        "simulated": False,
        "validity": VALID,
        "requests": {"scheduled": 40, "ok": 40, "failed": 0, "warmup": 10},
        "ttft_ms": spread(ttft),
        "tpot_ms": spread(20.0),
        "tbt_ms": spread(21.0),
        "worst_gap_ms": spread(gap),
        "attainment": {"joint": joint, SLO[0]: joint, SLO[1]: 1.0},
        "slo_met": {SLO[0]: joint >= 0.9, SLO[1]: True},
        "throughput": {"requests_per_s": 2.0, "output_tokens_per_s": 128.0},
        "dispatch_lag_ms": {"p50": 0.1, "p99": 0.5, "max": 1.0},
    }


def change(head: str, metric: str, verdict: str, effect: float | None = 0.3, pairs: int = 6) -> dict[str, Any]:
    primary = metric == "joint_attainment"
    return {
        "base": "base",
        "head": head,
        "metric": metric,
        "primary": primary,
        "scale": "difference" if primary else "log_ratio",
        "effect": effect,
        "percent": None if effect is None else 100 * effect,
        "interval": None if effect is None or pairs == 1 else [effect - 0.05, effect + 0.05],
        "level": 0.95,
        "pairs": pairs,
        "mde": 0.04,
        "verdict": verdict,
    }


def compare_document(
    arms: dict[str, dict[str, Any]], comparisons: list[dict[str, Any]], validity: dict[str, Any] = VALID
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": "compare",
        "run": "20260101T000000Z-chat-abcdefg",
        "workload": {
            "name": "chat",
            "arrivals": {"process": "poisson", "rate": 2.0},
            "num_requests": 40,
            "warmup": 10,
        },
        "slo": SLO,
        "pairs": 6,
        "fingerprint": {},
        "validity": validity,
        "arms": arms,
        "comparisons": comparisons,
        "sentence": "A sentence.",
    }
