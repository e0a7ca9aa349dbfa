"""One request of a trace, and how a bad one is told."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S
from pdbench.workload.checks import LENGTH_MAX

_LONGEST_NS = 100 * 366 * 86_400 * NS_PER_S
"""Far above any trace; keeps stamps well inside int64."""


class TraceRow(NamedTuple):
    """One request; ``t_ns`` counts from the first row of the file, unscaled. ``blocks``: hash ids of the prompt's
    leading pieces of ``block_tokens`` each, where the trace has them; ``text``: the prompt itself, likewise."""

    t_ns: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = 0
    text: str = ""


def bad(path: Path, line: int, column: str, message: str, remedy: str = "") -> UsageError:
    """The error for one cell."""
    return UsageError(message, where=f"{path}:{line}: column '{column}'", remedy=remedy)


def checked_count(path: Path, line: int, column: str, count: int) -> int:
    """A number of tokens. Raises ``UsageError``."""
    if not 0 <= count <= LENGTH_MAX:
        raise bad(path, line, column, f"{count} is outside 0..{LENGTH_MAX}")
    return count


class Clock:
    """Stamps of a file, counted from its first row; they may stand still but not go back."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._first_ns: int | None = None
        self._last_ns = 0

    def since_first(self, line: int, t_ns: int) -> int:
        """Raises ``UsageError`` where the file is not sorted."""
        if self._first_ns is None:
            self._first_ns = self._last_ns = t_ns
        if t_ns < self._last_ns:
            raise bad(self._path, line, self._column, "goes backwards", "sort the file by time")
        if t_ns - self._first_ns > _LONGEST_NS:
            message = "is more than a hundred years after the first row"
            raise bad(self._path, line, self._column, message, "is it in another unit?")
        self._last_ns = t_ns
        return t_ns - self._first_ns
