"""Production traces: rows of (arrival time, prompt tokens, output tokens), some with what their prompts share.

One small reader a format: ``csvfile`` (``azure``, ``burstgpt``) and ``jsonlines`` (``mooncake``, ``bailian``, plain
``jsonl``). A row that cannot be read stops everything with its line and column: a benchmark on a silently shortened
trace answers another question.

    pdbench compare --arrivals trace:AzureLLMInferenceTrace_conv.csv --num-requests 200
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, format_duration
from pdbench.workload.arrival_spec import Arrivals
from pdbench.workload.checks import seconds
from pdbench.workload.traces.csvfile import AZURE, BURSTGPT, read_csv
from pdbench.workload.traces.jitter import quantum_ns
from pdbench.workload.traces.jsonlines import BAILIAN, MOONCAKE, PLAIN, read_jsonl
from pdbench.workload.traces.row import TraceRow

__all__ = ["TraceRow", "count_rows", "detect", "jitter_ns", "read_slice", "with_jitter_resolved"]

_READERS = {
    "azure": partial(read_csv, layout=AZURE),
    "burstgpt": partial(read_csv, layout=BURSTGPT),
    "mooncake": partial(read_jsonl, layout=MOONCAKE),
    "bailian": partial(read_jsonl, layout=BAILIAN),
    "jsonl": partial(read_jsonl, layout=PLAIN),
}
_HEAD_ROWS = 4096
"""Enough to see a grid, and quick on a trace of a week."""


def detect(path: Path) -> str:
    """The format, from the first line; what cannot be told is read as ``azure``, whose errors then say why."""
    try:
        with path.open("rb") as file:
            head = file.readline(1 << 20).removeprefix(b"\xef\xbb\xbf").strip()
    except OSError:
        return "azure"
    if path.suffix in (".jsonl", ".json") or head.startswith(b"{"):
        try:
            keys = msgspec.json.decode(head, type=dict[str, msgspec.Raw]).keys()
        except msgspec.DecodeError:
            return "jsonl"
        if "input_length" not in keys:
            return "jsonl"
        return "bailian" if "chat_id" in keys else "mooncake"
    return "burstgpt" if b"Request tokens" in head else "azure"


def read_slice(arrivals: Arrivals) -> Iterator[TraceRow]:
    """The rows of ``arrivals.file`` inside the wanted slice, lazily, lengths and blocks scaled (lengths at least 1).

    Raises ``UsageError`` with file, line and column for what cannot be read, a missing column, a stamp that
    goes backwards, a negative length, and an empty slice.
    """
    start_row = arrivals.start_row or 0
    end_row = start_row + arrivals.rows if arrivals.rows is not None else None
    start_ns = round((arrivals.start_s or 0.0) * NS_PER_S)
    end_ns = start_ns + round(arrivals.duration_s * NS_PER_S) if arrivals.duration_s is not None else None
    path, empty = Path(arrivals.file or ""), True
    for number, row in enumerate(_rows(arrivals)):
        if number < start_row or row.t_ns < start_ns:
            continue
        if (end_row is not None and number >= end_row) or (end_ns is not None and row.t_ns >= end_ns):
            break
        empty = False
        yield row._replace(
            prompt_tokens=max(1, round(row.prompt_tokens * arrivals.length_scale)),
            output_tokens=max(1, round(row.output_tokens * arrivals.length_scale)),
        )
    if empty:
        raise UsageError("the wanted slice of the trace is empty", where=str(path), remedy="widen the slice")


def count_rows(arrivals: Arrivals) -> int:
    """How many rows the slice holds."""
    return sum(1 for _ in read_slice(arrivals))


def jitter_ns(arrivals: Arrivals) -> int:
    """How far a row may be moved (``jitter``); where it is ``auto``, the file's first rows say. 0: not at all."""
    if arrivals.jitter == "off":
        return 0
    if arrivals.jitter not in (None, "auto"):
        return round(seconds("jitter", str(arrivals.jitter)) * NS_PER_S)
    return quantum_ns(np.array([row.t_ns for row in islice(_rows(arrivals), _HEAD_ROWS)], dtype=np.int64))


def with_jitter_resolved(arrivals: Arrivals) -> Arrivals:
    """``auto`` replaced by what it means for this file, so that whoever reads the configuration sees it."""
    if arrivals.process != "trace" or arrivals.jitter not in (None, "auto"):
        return arrivals
    quantum = jitter_ns(arrivals)
    return replace(arrivals, jitter=format_duration(quantum) if quantum else "off")


def _rows(arrivals: Arrivals) -> Iterator[TraceRow]:
    path = Path(arrivals.file or "")
    return _READERS[arrivals.format or detect(path)](path)
