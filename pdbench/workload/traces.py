"""Production traces: rows of (arrival time, prompt tokens, output tokens) from a CSV file.

Format ``azure`` (Azure public LLM inference traces): ``TIMESTAMP,ContextTokens,GeneratedTokens`` with
stamps to 100 ns. A row that cannot be read stops everything with its line and column: a benchmark on a
silently shortened trace answers another question.

    pdbench compare --arrivals trace:AzureLLMInferenceTrace_conv.csv --num-requests 200
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pdbench.errors import UsageError, did_you_mean
from pdbench.units import NS_PER_S
from pdbench.workload.spec import LENGTH_MAX, Arrivals

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})?")


class TraceRow(NamedTuple):
    """One request of a trace; ``t_ns`` counts from the first row of the file, unscaled."""

    t_ns: int
    prompt_tokens: int
    output_tokens: int


def read_slice(arrivals: Arrivals) -> Iterator[TraceRow]:
    """The rows of ``arrivals.file`` inside the wanted slice, lazily, lengths scaled (at least 1).

    Raises ``UsageError`` with file, line and column for what cannot be read, a missing column, a stamp that
    goes backwards, a negative length, and an empty slice.
    """
    start_row = arrivals.start_row or 0
    end_row = start_row + arrivals.rows if arrivals.rows is not None else None
    start_ns = round((arrivals.start_s or 0.0) * NS_PER_S)
    end_ns = start_ns + round(arrivals.duration_s * NS_PER_S) if arrivals.duration_s is not None else None
    path, empty = Path(arrivals.file or ""), True
    for number, row in enumerate(_read_azure(path)):
        if number < start_row or row.t_ns < start_ns:
            continue
        if (end_row is not None and number >= end_row) or (end_ns is not None and row.t_ns >= end_ns):
            break
        empty = False
        yield TraceRow(
            row.t_ns,
            max(1, round(row.prompt_tokens * arrivals.length_scale)),
            max(1, round(row.output_tokens * arrivals.length_scale)),
        )
    if empty:
        raise UsageError("the wanted slice of the trace is empty", where=str(path), remedy="widen the slice")


def count_rows(arrivals: Arrivals) -> int:
    """How many rows the slice holds."""
    return sum(1 for _ in read_slice(arrivals))


def _read_azure(path: Path) -> Iterator[TraceRow]:
    try:
        file = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot read the trace: {reason}", where=str(path)) from None
    with file:
        reader = csv.reader(file)
        try:
            places = _places(path, next(reader, []))
            first_ns, last_ns = None, 0
            for cells in reader:
                if not cells:
                    continue
                row = _row(path, reader.line_num, cells, places)
                first_ns = row.t_ns if first_ns is None else first_ns
                t_ns = row.t_ns - first_ns
                if t_ns < last_ns:
                    raise _bad(path, reader.line_num, _COLUMNS[0], "goes backwards", "sort the file by time")
                last_ns = t_ns
                yield row._replace(t_ns=t_ns)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"not a CSV file: {error}", where=f"{path}:{reader.line_num + 1}") from None


def _places(path: Path, header: list[str]) -> tuple[int, int, int]:
    names = [name.strip() for name in header]
    for column in _COLUMNS:
        if column not in names:
            hint = did_you_mean(column, names) if names else "the file is empty"
            remedy = f"{hint}; needed: {', '.join(_COLUMNS)}"
            raise UsageError(f"column '{column}' is missing", where=f"{path}:1", remedy=remedy)
    stamp, prompt, output = (names.index(column) for column in _COLUMNS)
    return stamp, prompt, output


def _row(path: Path, line: int, cells: list[str], places: tuple[int, int, int]) -> TraceRow:
    if len(cells) <= max(places):
        where = f"{path}:{line}"
        raise UsageError(f"only {len(cells)} columns", where=where, remedy="is the file cut short?")
    t_ns = _stamp_ns(cells[places[0]])
    if t_ns is None:
        message = f"'{cells[places[0]]}' is not a time"
        raise _bad(path, line, _COLUMNS[0], message, "write 2023-11-16 18:15:46.6805900")
    counts = []
    for column, place in zip(_COLUMNS[1:], places[1:], strict=True):
        text = cells[place].strip()
        if not re.fullmatch(r"[+-]?\d{1,12}", text):
            raise _bad(path, line, column, f"'{text}' is not a whole number")
        count = int(text)
        if not 0 <= count <= LENGTH_MAX:
            raise _bad(path, line, column, f"{count} is outside 0..{LENGTH_MAX}")
        counts.append(count)
    return TraceRow(t_ns, counts[0], counts[1])


def _stamp_ns(text: str) -> int | None:
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


def _bad(path: Path, line: int, column: str, message: str, remedy: str = "") -> UsageError:
    return UsageError(message, where=f"{path}:{line}: column '{column}'", remedy=remedy)
