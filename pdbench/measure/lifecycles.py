"""The server's own stamps, one row a request, as plain columns, and joined to what the client saw of it.

A reference server keeps a row a request (``server.parquet``) and a row a step (``steps.parquet``); both carry
``arm`` and ``pair``. The client and the server name a request alike, by ``X-Request-Id``, and on one machine
they read the same clock: so a stamp of one may be subtracted from a stamp of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench.measure.latency import Floats, Ints, floats

RUN = ["arm", "pair"]
_KEY = [*RUN, "request_id"]
Flags = npt.NDArray[np.bool_]


def server_frame(rows: Iterable[Mapping[str, Any]], arm: str = "", pair: int = 0) -> pd.DataFrame:
    """Rows of ``/admin/requests`` or ``/admin/steps`` as a table with ``arm`` and ``pair`` (a row's own go
    before the arguments)."""
    return pd.DataFrame([{"arm": arm, "pair": pair, **row} for row in rows])


def column(table: pd.DataFrame, name: str) -> Floats:
    """A column as float64; NaN where a value, or the whole column, is absent."""
    return floats(table[name]) if name in table else np.full(len(table), np.nan)


Rows = npt.NDArray[np.intp]


def by_run(table: pd.DataFrame) -> dict[tuple[Any, ...], Rows]:
    """``{(arm, pair): rows}``."""
    return _grouped(table, {})


def by_worker(table: pd.DataFrame, worker: str) -> dict[tuple[Any, ...], Rows]:
    """``{(arm, pair, worker): rows}``; ``worker`` is the column that names it. Rows without one are in none."""
    return _grouped(table, {"worker": column(table, worker)})


def _grouped(table: pd.DataFrame, more: dict[str, Floats]) -> dict[tuple[Any, ...], Rows]:
    if not len(table):
        return {}
    keys = pd.DataFrame({"arm": table["arm"].to_numpy(dtype=object), "pair": column(table, "pair"), **more})
    return dict(keys.groupby(list(keys.columns)).indices)  # type: ignore[arg-type]


def matched(server: pd.DataFrame, requests: pd.DataFrame) -> Ints:
    """For each row of ``server`` its row in ``requests``, -1 where the client has none.

    Raises ``ValueError`` when the client's table names a request twice in one run.
    """
    if not len(server) or "request_id" not in server or not len(requests):
        return np.full(len(server), -1, dtype=np.int64)
    both = pd.concat([table[_KEY].astype(object) for table in (server, requests)], ignore_index=True)
    codes = np.asarray(both.groupby(_KEY).ngroup(), dtype=np.int64)
    mine, theirs = codes[: len(server)], codes[len(server) :]
    if len(np.unique(theirs)) != len(theirs):
        raise ValueError("a request appears twice in the client's table")
    place = np.full(max(int(mine.max()), int(theirs.max())) + 1, -1, dtype=np.int64)
    place[theirs] = np.arange(len(theirs))
    return np.asarray(place[mine], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class TokenStamps:
    """The token stamps of a table of lifecycles, laid end to end: ``row[i]`` is whose, ``t_ns[i]`` is when,
    ``number[i]`` is which token of its request, from 0."""

    row: Ints
    number: Ints
    t_ns: Ints


def token_stamps(server: pd.DataFrame) -> TokenStamps:
    """``token_ns`` unrolled. A request without the list has no tokens."""
    lists: list[Any] = list(server["token_ns"]) if "token_ns" in server else []
    sizes = np.array([_size(one) for one in lists], dtype=np.int64)
    rows: Ints = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    starts = np.cumsum(sizes) - sizes
    number: Ints = np.arange(len(rows), dtype=np.int64) - np.repeat(starts, sizes)
    parts: list[npt.NDArray[np.int64]] = [
        np.asarray(one, dtype=np.int64) for one, n in zip(lists, sizes, strict=True) if n
    ]
    stamps: Ints = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    return TokenStamps(rows, number, stamps)


def _size(stamps: Any) -> int:
    return len(stamps) if hasattr(stamps, "__len__") else 0
