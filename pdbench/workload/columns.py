"""One column of numbers from a file: CSV with a header, JSON lines, or a bare list with one number a line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pdbench.errors import UsageError, did_you_mean
from pdbench.workload.checks import LENGTH_MAX


def read_text(path: Path, what: str) -> str:
    """A UTF-8 file, its byte-order mark left out. Raises ``UsageError``."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the {what}: {error.strerror or error}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"the {what} is not UTF-8 text: {error.reason}", where=str(path)) from None


def read_json(path: Path, line: int, text: str | bytes) -> Any:
    """What one line of a JSONL file holds. Raises ``UsageError`` naming it."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not JSON: {error}", where=f"{path}:{line}", remedy="one JSON object a line") from None


def read_column(path: Path, column: str | None) -> list[int]:
    """Lengths in tokens, each at least 1. Raises ``UsageError`` naming line and column."""
    text = read_text(path, "lengths")
    if path.suffix == ".jsonl":
        cells = _of_json(path, text, column)
    elif column is not None:
        cells = _of_csv(path, text, column)
    else:
        cells = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())
    named = f": column '{column}'" if column is not None else ""
    found = []
    for line, cell in cells:
        where = f"{path}:{line}{named}"
        if not re.fullmatch(r"\d{1,12}", cell):
            raise UsageError(f"'{cell}' is not a whole number", where=where, remedy="one length in tokens a line")
        if not 1 <= int(cell) <= LENGTH_MAX:
            raise UsageError(f"{cell} is outside 1..{LENGTH_MAX}", where=where)
        found.append(int(cell))
    if not found:
        raise UsageError("holds no length", where=str(path))
    return found


def _of_csv(path: Path, text: str, column: str) -> Iterator[tuple[int, str]]:
    reader = csv.DictReader(text.splitlines())
    if column not in (reader.fieldnames or ()):
        hint = did_you_mean(column, list(reader.fieldnames or ()))
        raise UsageError(f"column '{column}' is missing", where=f"{path}:1", remedy=hint)
    for row in reader:
        yield reader.line_num, (row[column] or "").strip()


def _of_json(path: Path, text: str, column: str | None) -> Iterator[tuple[int, str]]:
    if column is None:
        raise UsageError("which key of the lines holds the length?", where=str(path), remedy="add column: KEY")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = read_json(path, number, line)
        if not isinstance(row, dict) or column not in row:
            raise UsageError(f"the key '{column}' is missing", where=f"{path}:{number}")
        yield number, str(row[column])
