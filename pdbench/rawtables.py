"""The Parquet tables of a run, read by column and by arm: sealed ones, or the segments of a run that never ended.

Six million token rows are read in well under a second: only the columns asked for, the arm as a dictionary, so that an
arm is told by a small integer, and no row ever becomes a Python object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pdbench.errors import UsageError
from pdbench.store import SCHEMAS, as_frame

NAMES = ("requests", "tokens", "server", "steps")
_NEEDED = {
    "requests": ("arm", "pair", "index", "scheduled_ns"),
    "tokens": ("arm", "pair", "index", "t_ns", "n_tokens"),
    "server": ("arm", "pair"),
    "steps": ("arm", "pair"),
}
"""Columns without which a table says nothing."""


@dataclass(slots=True)
class RawTables:
    """``files``: (table, path) of every file that can be read. ``torn``: words about each that cannot.

    Whether a file is whole shows only when it is read: then ``UsageError`` names it."""

    files: Sequence[tuple[str, Path]]
    torn: tuple[str, ...] = ()
    _arrays: dict[tuple[str, str], npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    _codes: dict[str, tuple[npt.NDArray[np.int32], list[str]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of_folder(cls, path: Path) -> RawTables:
        """A sealed run."""
        return cls._checked([(name, path / f"{name}.parquet") for name in NAMES])

    @classmethod
    def of_segments(cls, path: Path) -> RawTables:
        """The segments of an unfinished run, in the order in which they were written."""
        return cls._checked([(name, one) for name in NAMES for one in sorted(path.glob(f"{name}-*.parquet"))])

    @classmethod
    def _checked(cls, files: Sequence[tuple[str, Path]]) -> RawTables:
        good, torn = [], []
        for name, path in files:
            if not path.is_file():
                continue
            try:
                there = pq.read_schema(path).names
            except (pa.ArrowException, OSError):
                torn.append(f"{path.name} is torn and left out; run it again")
                continue
            if lacking := [column for column in _NEEDED[name] if column not in there]:
                torn.append(f"{path.name} lacks {', '.join(lacking)} and is left out; run it again")
                continue
            good.append((name, path))
        return cls(good, tuple(torn))

    def has(self, table: str) -> bool:
        """Whether a file of it can be read."""
        return any(name == table for name, _ in self.files)

    def arms(self, table: str) -> list[str]:
        """Its arms, in order of appearance."""
        codes, names = self._arm(table)
        if not len(codes):
            return []
        present, first = np.unique(codes, return_index=True)
        return [names[code] for code in present[np.argsort(first)]]

    def counts(self, table: str) -> dict[str, int]:
        """Rows by arm."""
        codes, names = self._arm(table)
        return {name: int(count) for name, count in zip(names, np.bincount(codes, minlength=len(names)), strict=True)}

    def columns(self, table: str, names: Sequence[str], arm: str) -> dict[str, npt.NDArray[Any]]:
        """Columns of one arm's rows as arrays, absent values NaN; those that the files lack are left out, but all are
        there (and empty) where there is no file."""
        if not self.has(table):
            return {name: np.zeros(0) for name in names}
        codes, known = self._arm(table)
        self._load(table, names)
        if arm not in known:
            return {name: self._arrays[table, name][:0] for name in names if (table, name) in self._arrays}
        mine = codes == known.index(arm)
        whole = bool(mine.all())
        found = {name: self._arrays[table, name] for name in names if (table, name) in self._arrays}
        return found if whole else {name: values[mine] for name, values in found.items()}

    def frame(self, table: str, arm: str, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One arm's rows as pandas, as ``store.read_run`` has them; all columns without ``names``."""
        parts = []
        for path in self._paths(table):
            there = pq.read_schema(path).names
            wanted = there if names is None else [name for name in names if name in there]
            parts.append(_read(path, columns=wanted, filters=[("arm", "==", arm)]))
        if not parts:
            empty = SCHEMAS[table].empty_table() if table in SCHEMAS else pa.table({"arm": [], "pair": []})
            return as_frame(empty)
        return as_frame(pa.concat_tables(parts, promote_options="permissive"))

    def _paths(self, table: str) -> list[Path]:
        return [path for name, path in self.files if name == table]

    def _arm(self, table: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        if table not in self._codes:
            parts = [_read(path, columns=["arm"], read_dictionary=["arm"]) for path in self._paths(table)]
            if not parts:
                self._codes[table] = (np.zeros(0, dtype=np.int32), [])
            else:
                column = pa.concat_tables(parts).column("arm")
                if not pa.types.is_dictionary(column.type):
                    column = column.dictionary_encode()
                whole = column.unify_dictionaries().combine_chunks()
                whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
                codes = whole.indices.to_numpy(zero_copy_only=False).astype(np.int32)
                self._codes[table] = (codes, [str(name) for name in whole.dictionary.to_pylist()])
        return self._codes[table]

    def _load(self, table: str, names: Sequence[str]) -> None:
        """Read what is not read yet."""
        paths = self._paths(table)
        there = set.intersection(*(set(pq.read_schema(path).names) for path in paths))
        wanted = [name for name in names if name in there and (table, name) not in self._arrays]
        if not wanted:
            return
        read = pa.concat_tables([_read(path, columns=wanted) for path in paths], promote_options="permissive")
        for name in wanted:
            self._arrays[table, name] = read.column(name).to_numpy()


def _read(path: Path, **asked: Any) -> pa.Table:
    try:
        return pq.read_table(path, **asked)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"cannot be read: {reason}", where=str(path), remedy="run it again") from None
