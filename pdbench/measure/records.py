"""What was seen of one request: raw stamps and counts, no metric.

The load engine appends one ``RequestRecord`` an ended request to its journal; every number in a report is
derived from these afterwards, so that an SLO can be changed after the run. All stamps are CLOCK_MONOTONIC
nanoseconds. The module imports nothing heavy: the engine process loads it on its hot start-up path.
``to_frames`` imports pandas when it is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "error", "timeout", "rejected", "cancelled", "unfinished"]
TokenSource = Literal["continuous_usage", "usage_over_chunks", "tokenizer", "chunks"]
STATUSES: tuple[str, ...] = get_args(Status)


class RequestRecord(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One request as the client saw it.

    ``scheduled_ns``: when the plan says it is due. ``sent_ns``: first byte handed to the socket; ``None``
    if it never was. ``chunk_ns[i]``, ``chunk_tokens[i]``: receive time and token count of token-bearing
    chunk ``i``. ``user_lag_ns``: userspace minus kernel stamp, one a read; empty on the user clock.
    ``max_events_per_read`` above 1 says that one stamp stood for several events; ``merged_events`` counts those
    that shared their read with another; ``worst_gap_lag_ns``: how late the read was that ended the longest gap, where
    it was such a read, else 0. ``write_ns``: how long handing the first byte to the socket took, by which
    ``sent_ns`` may be early. ``note``: what the server said that was not believed; the request is judged all the
    same.
    """

    index: int
    scheduled_ns: int
    sent_ns: int | None = None
    end_ns: int | None = None
    status: Status
    http_status: int | None = None
    error: str = ""
    warmup: bool = False
    planned_prompt_tokens: int
    planned_output_tokens: int
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    chunk_ns: list[int] = []  # msgspec copies an empty default
    chunk_tokens: list[int] = []
    token_source: TokenSource = "usage_over_chunks"
    user_lag_ns: list[int] = []
    reads: int = 0
    max_events_per_read: int = 0
    merged_events: int = 0
    worst_gap_lag_ns: int = 0
    write_ns: int = 0
    note: str = ""
    request_id: str = ""


_INT_COLUMNS = (
    "index",
    "scheduled_ns",
    "planned_prompt_tokens",
    "planned_output_tokens",
    "reads",
    "max_events_per_read",
    "merged_events",
    "worst_gap_lag_ns",
    "write_ns",
)
_NULLABLE_COLUMNS = ("sent_ns", "end_ns", "http_status", "prompt_tokens", "output_tokens")
_TEXT_COLUMNS = ("status", "error", "token_source", "note", "request_id")


def to_frames(records: Iterable[RequestRecord], arm: str, pair: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of one run as two tables, in order of ``index``.

    ``requests``: one row a request; columns ``arm``, ``pair``, then the fields of the record without its
    chunks; int64, nullable Int64 where a value may be absent; ``user_lag_ns`` is a list column; ``chunks``
    counts the chunks. ``tokens``: one row a token-bearing chunk: ``arm``, ``pair``, ``index``, ``t_ns``,
    ``n_tokens``.
    """
    import numpy as np
    import pandas as pd

    rows = sorted(records, key=lambda r: r.index)
    columns: dict[str, object] = {
        "arm": pd.array([arm] * len(rows), dtype="str"),
        "pair": np.full(len(rows), pair, dtype=np.int64),
    }
    for name in _INT_COLUMNS:
        columns[name] = np.array([getattr(r, name) for r in rows], dtype=np.int64)
    for name in _NULLABLE_COLUMNS:
        columns[name] = pd.array([getattr(r, name) for r in rows], dtype="Int64")
    for name in _TEXT_COLUMNS:
        columns[name] = pd.array([getattr(r, name) for r in rows], dtype="str")
    columns["chunks"] = np.array([len(r.chunk_ns) for r in rows], dtype=np.int64)
    columns["warmup"] = np.array([r.warmup for r in rows], dtype=np.bool_)
    columns["user_lag_ns"] = pd.Series([list(r.user_lag_ns) for r in rows], dtype=object)
    requests = pd.DataFrame(columns)

    counts = [len(r.chunk_ns) for r in rows]
    total = sum(counts)
    tokens = pd.DataFrame(
        {
            "arm": pd.array([arm] * total, dtype="str"),
            "pair": np.full(total, pair, dtype=np.int64),
            "index": np.repeat(np.array([r.index for r in rows], dtype=np.int64), counts),
            "t_ns": np.array([t for r in rows for t in r.chunk_ns], dtype=np.int64),
            "n_tokens": np.array([n for r in rows for n in r.chunk_tokens], dtype=np.int64),
        }
    )
    return requests, tokens
