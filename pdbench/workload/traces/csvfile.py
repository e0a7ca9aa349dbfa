"""Traces in CSV with a header line.

``azure`` (Azure public LLM inference traces, 2023 and 2024): ``TIMESTAMP,ContextTokens,GeneratedTokens`` with stamps
to 100 ns, those of 2024 with a zone. ``burstgpt``: ``Timestamp`` in seconds, ``Request tokens``, ``Response tokens``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from pdbench.errors import UsageError, did_you_mean
from pdbench.units import NS_PER_S
from pdbench.workload.traces.row import Clock, TraceRow, bad, checked_count

_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})?")


class Layout(NamedTuple):
    """The names of the three columns, how a stamp is read, and what one looks like."""

    columns: tuple[str, str, str]
    stamp_ns: Callable[[str], int | None]
    example: str


def read_csv(path: Path, layout: Layout) -> Iterator[TraceRow]:
    """The rows in order. Raises ``UsageError`` with file, line and column."""
    try:
        file = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot read the trace: {reason}", where=str(path)) from None
    with file:
        reader = csv.reader(file)
        try:
            places = _places(path, next(reader, []), layout)
            clock = Clock(path, layout.columns[0])
            for cells in reader:
                if cells:
                    row = _row(path, reader.line_num, cells, places, layout)
                    yield row._replace(t_ns=clock.since_first(reader.line_num, row.t_ns))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"not a CSV file: {error}", where=f"{path}:{reader.line_num + 1}") from None


def _places(path: Path, header: list[str], layout: Layout) -> tuple[int, int, int]:
    names = [name.strip() for name in header]
    for column in layout.columns:
        if column not in names:
            hint = did_you_mean(column, names) if names else "the file is empty"
            remedy = f"{hint}; needed: {', '.join(layout.columns)}"
            raise UsageError(f"column '{column}' is missing", where=f"{path}:1", remedy=remedy)
    stamp, prompt, output = (names.index(column) for column in layout.columns)
    return stamp, prompt, output


def _row(path: Path, line: int, cells: list[str], places: tuple[int, int, int], layout: Layout) -> TraceRow:
    if len(cells) <= max(places):
        where = f"{path}:{line}"
        raise UsageError(f"only {len(cells)} columns", where=where, remedy="is the file cut short?")
    t_ns = layout.stamp_ns(cells[places[0]])
    if t_ns is None:
        message = f"'{cells[places[0]]}' is not a time"
        raise bad(path, line, layout.columns[0], message, f"write {layout.example}")
    counts = []
    for column, place in zip(layout.columns[1:], places[1:], strict=True):
        text = cells[place].strip()
        if not re.fullmatch(r"[+-]?\d{1,12}", text):
            raise bad(path, line, column, f"'{text}' is not a whole number")
        counts.append(checked_count(path, line, column, int(text)))
    return TraceRow(t_ns, counts[0], counts[1])


def _moment_ns(text: str) -> int | None:
    """Nanoseconds since 1970 in integers: a float would lose the 100 ns digit."""
    match = _STAMP.fullmatch(text.strip())
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(match.group(1) + (match.group(3) or "+00:00"))
    except ValueError:
        return None
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * NS_PER_S + int((match.group(2) or "0").ljust(9, "0"))


def _seconds_ns(text: str) -> int | None:
    match = re.fullmatch(r"\d{1,12}(\.\d+)?", text.strip())
    return round(Decimal(match.group()) * NS_PER_S) if match else None


AZURE = Layout(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _moment_ns, "2023-11-16 18:15:46.6805900")
BURSTGPT = Layout(("Timestamp", "Request tokens", "Response tokens"), _seconds_ns, "a number of seconds, 12.5")
