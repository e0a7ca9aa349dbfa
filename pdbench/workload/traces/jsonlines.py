"""Traces of one JSON object a line.

``mooncake``: ``timestamp`` in ms, ``input_length``, ``output_length``, ``hash_ids`` of blocks of 512 tokens; equal ids
mean equal text from the prompt's start up to there. ``bailian``: the same keys with ``chat_id``, seconds, and blocks
of 16. ``jsonl``: a plain one, ``timestamp`` or ``t_s`` in seconds, ``prompt_tokens``, ``output_tokens``, and if wanted
``prompt`` (its text) and ``hash_ids``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from pdbench.errors import UsageError, did_you_mean
from pdbench.units import NS_PER_MS, NS_PER_S
from pdbench.workload.columns import read_json
from pdbench.workload.traces.row import Clock, TraceRow, bad, checked_count


class Layout(NamedTuple):
    """Names of the keys, the unit of a stamp and the size of a block."""

    stamps: tuple[str, ...]
    unit_ns: int
    prompt: str
    output: str
    block_tokens: int


MOONCAKE = Layout(("timestamp",), NS_PER_MS, "input_length", "output_length", 512)
BAILIAN = Layout(("timestamp",), NS_PER_S, "input_length", "output_length", 16)
PLAIN = Layout(("t_s", "timestamp"), NS_PER_S, "prompt_tokens", "output_tokens", 512)


def read_jsonl(path: Path, layout: Layout) -> Iterator[TraceRow]:
    """The rows in order. Raises ``UsageError`` with file, line and column (or key)."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read the trace: {error.strerror or error}", where=str(path)) from None
    with file:
        clock: Clock | None = None
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            found = _object(path, line, text.removeprefix(b"\xef\xbb\xbf"))
            stamp = next((name for name in layout.stamps if name in found), None)
            if stamp is None:
                raise _missing(path, line, layout.stamps[0], found)
            clock = clock or Clock(path, stamp)
            row = _row(path, line, found, layout)
            yield row._replace(t_ns=clock.since_first(line, _stamp_ns(path, line, stamp, found, layout)))


def _object(path: Path, line: int, text: bytes) -> dict[str, Any]:
    found = read_json(path, line, text)
    if not isinstance(found, dict):
        raise UsageError("not a JSON object", where=f"{path}:{line}", remedy="one JSON object a line")
    return found


def _row(path: Path, line: int, found: dict[str, Any], layout: Layout) -> TraceRow:
    counts = []
    for name in (layout.prompt, layout.output):
        if name not in found:
            raise _missing(path, line, name, found)
        value = found[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise bad(path, line, name, f"{value!r} is not a whole number")
        counts.append(checked_count(path, line, name, value))
    text = found.get("prompt", "") if layout is PLAIN else ""
    if not isinstance(text, str):
        raise bad(path, line, "prompt", f"{text!r} is not text")
    return TraceRow(0, counts[0], counts[1], _blocks(path, line, found), layout.block_tokens, text)


def _blocks(path: Path, line: int, found: dict[str, Any]) -> tuple[int, ...]:
    ids = found.get("hash_ids") or []
    if not isinstance(ids, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise bad(path, line, "hash_ids", "must be a list of whole numbers")
    return tuple(ids)


def _stamp_ns(path: Path, line: int, name: str, found: dict[str, Any], layout: Layout) -> int:
    value = found[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise bad(path, line, name, f"{value!r} is not a time", "write a number that is not negative")
    return round(Decimal(str(value)) * layout.unit_ns)


def _missing(path: Path, line: int, name: str, found: dict[str, Any]) -> UsageError:
    remedy = did_you_mean(name, [key for key in found if isinstance(key, str)]) if found else ""
    return UsageError(f"the key '{name}' is missing", where=f"{path}:{line}", remedy=remedy)
