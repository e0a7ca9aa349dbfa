"""Requests, or arms, as CSV (RFC 4180): for a spreadsheet, or for tools that read nothing else.

A cell of text that a spreadsheet would take for a formula begins with an apostrophe: request ids, errors and arm names
come from outside. Numbers are never touched. ``inf`` is a latency that never came; an empty cell, one that does not
apply.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pdbench.stored import StoredRun
from pdbench.units import NS_PER_MS

_LATENCIES = ("ttft_ms", "service_ttft_ms", "tpot_ms", "worst_gap_ms", "e2e_ms", "ttst_ms", "handoff_gap_ms")
_COUNTS = ("planned_prompt_tokens", "planned_output_tokens", "prompt_tokens", "output_tokens", "chunks")
_TEXTS = ("token_source", "error", "note")
REQUEST_COLUMNS = (
    "arm", "pair", "index", "request_id", "status", "warmup", "http_status", "due_ms", "sent_ms", "end_ms",
    *_LATENCIES, *_COUNTS, *_TEXTS,
)  # fmt: skip
_SPREADS = ("ttft_ms", "service_ttft_ms", "tpot_ms", "tbt_ms", "worst_gap_ms", "e2e_ms", "ttst_ms")
_FORMULA = frozenset("=+-@")
_UNSEEN = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


def requests_csv(run: StoredRun) -> str:
    """One row a request of every arm, warm-up marked. Instants are milliseconds since the first of its run was due."""
    rows: list[Sequence[Any]] = []
    for arm in run.arms:
        numbers, table = run.numbers(arm), run.requests(arm)
        t0 = {pair: numbers.t0_ns(pair) or 0 for pair in numbers.pairs}
        zero = np.array([t0[int(pair)] for pair in numbers.pair], dtype=np.int64)
        columns: dict[str, Iterable[Any]] = {
            "arm": [arm] * len(numbers),
            "pair": numbers.pair.tolist(),
            "index": numbers.index.tolist(),
            "request_id": numbers.request_id.tolist(),
            "status": numbers.status.tolist(),
            "warmup": numbers.warmup.astype(int).tolist(),
            "due_ms": ((numbers.scheduled_ns - zero) / NS_PER_MS).tolist(),
            "sent_ms": ((numbers.sent_ns - zero) / NS_PER_MS).tolist(),
            "end_ms": ((numbers.end_ns - zero) / NS_PER_MS).tolist(),
            **{name: getattr(numbers, name).tolist() for name in _LATENCIES},
        }
        for name in ("http_status", *_COUNTS, *_TEXTS):
            known = name in table
            columns[name] = table[name].astype(object).tolist() if known else [None] * len(numbers)
        rows += zip(*(columns[name] for name in REQUEST_COLUMNS), strict=True)
    return written(REQUEST_COLUMNS, rows)


def arms_csv(run: StoredRun) -> str:
    """One row an arm: its figures as in the document, a column each; a search's goodput, whole and by device."""
    arms = run.document.get("arms")
    rows = [_arm_row(run, str(name), arm) for name, arm in arms.items()] if isinstance(arms, dict) else []
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["arm"]
    return written(names, [[row.get(name) for name in names] for row in rows])


def _arm_row(run: StoredRun, name: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    validity = arm.get("validity") or run.document.get("validity") or {}
    row: dict[str, Any] = {"run": run.name, "arm": name, "devices": arm.get("devices")}
    row |= {"simulated": int(bool(arm.get("simulated"))), "validity": validity.get("status")}
    if isinstance(arm.get("requests"), Mapping):
        row |= {f"requests_{key}": value for key, value in arm["requests"].items()}
    for metric in _SPREADS:
        row |= {f"{metric[:-3]}_{stat}_ms": _latency(value) for stat, value in (arm.get(metric) or {}).items()}
    for key, share in (arm.get("attainment") or {}).items():
        low, high = (arm.get("attainment_interval") or {}).get(key, (None, None))
        row |= {f"attainment {key}": share, f"attainment {key} low": low, f"attainment {key} high": high}
    row |= {f"met {key}": int(met) for key, met in (arm.get("slo_met") or {}).items()}
    row |= dict(arm.get("throughput") or {})
    row |= {f"device_busy_{place}": share for place, share in enumerate(arm.get("device_busy") or ())}
    for what, found in (("goodput", arm.get("goodput")), ("goodput_per_device", _per_device(arm))):
        if found:
            low, high = found.get("interval") or (None, None)
            row |= {what: found.get("rate"), f"{what}_low": low, f"{what}_high": high}
    if arm.get("goodput"):
        row["goodput_where"] = arm["goodput"].get("where")
    return row


def _per_device(arm: Mapping[str, Any]) -> Any:
    return (arm.get("goodput") or {}).get("per_device")


def _latency(value: float | None) -> float:
    """``null`` in a document is +inf."""
    return math.inf if value is None else value


def written(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The text, lines ending in CR LF."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([cell(name) for name in names])
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def cell(value: Any) -> Any:
    """A value as it stands in a cell."""
    if isinstance(value, str):
        return f"'{value}" if _risky(value) else value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value


def _risky(text: str) -> bool:
    """Whether a spreadsheet may take it for a formula: it begins with a sign of one, full-width ones among them, behind
    whatever cannot be seen; or with what ends a cell (a tab or a line's end), behind blanks."""
    if text[:1].isalnum():
        return False
    if text.lstrip(" ")[:1] in ("\t", "\r", "\n"):
        return True
    first = next((one for one in text if unicodedata.category(one) not in _UNSEEN), "")
    return unicodedata.normalize("NFKC", first) in _FORMULA
