"""One arm's requests and token gaps as plain arrays: what pictures are drawn from.

The same figures as ``measure.latency.request_metrics`` (a property test keeps them equal), without a table of tokens:
the tokens of a request lie side by side in a stored run, so first, last and worst are found by where a request begins.
Six million tokens take a tenth of a second.

Times are float milliseconds, +inf for a request that did not complete, NaN where a metric does not apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pdbench.measure.latency import Floats, Ints
from pdbench.units import NS_PER_MS

Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token-bearing chunks of one arm, arrival order kept inside a request. ``index`` and ``pair`` name the request."""

    pair: Ints
    index: Ints
    t_ns: Ints
    n_tokens: Ints

    def __len__(self) -> int:
        return len(self.t_ns)


@dataclass(frozen=True, slots=True)
class Numbers:
    """One value a request, in the order they were stored, then one a gap.

    ``sent_ns``, ``end_ns``: NaN where it was never sent, or had no end. ``gaps_ms[m]`` ended at ``gap_end_ns[m]`` in
    the request at *position* ``gap_request[m]`` of the other arrays. Warm-up is in here: see ``measured``.
    """

    pair: Ints
    index: Ints
    scheduled_ns: Ints
    sent_ns: Floats
    end_ns: Floats
    status: Texts
    warmup: Flags
    request_id: Texts
    ttft_ms: Floats
    service_ttft_ms: Floats
    tpot_ms: Floats
    worst_gap_ms: Floats
    e2e_ms: Floats
    ttst_ms: Floats
    handoff_gap_ms: Floats
    gaps_ms: Floats
    gap_end_ns: Ints
    gap_request: Ints

    def __len__(self) -> int:
        return len(self.index)

    @property
    def completed(self) -> Flags:
        return np.isfinite(self.e2e_ms)

    @property
    def pairs(self) -> list[int]:
        """The runs in it, by number."""
        return [int(pair) for pair in np.unique(self.pair)]

    def t0_ns(self, pair: int) -> int | None:
        """When the first request of a pair was due, warm-up included; ``None`` where the pair has none."""
        due = self.scheduled_ns[self.pair == pair]
        return int(due.min()) if len(due) else None

    def measured(self) -> Numbers:
        """Without warm-up."""
        return self.only(~self.warmup)

    def of_pairs(self, pairs: Iterable[int]) -> Numbers:
        """The requests of some runs."""
        return self.only(np.isin(self.pair, list(pairs)))

    def only(self, kept: Flags) -> Numbers:
        """The requests where ``kept`` is true, and their gaps."""
        if kept.all():
            return self
        place = np.cumsum(kept, dtype=np.int64) - 1
        inside = kept[self.gap_request]
        rows = {name: getattr(self, name)[kept] for name in _ROWS}
        return replace(
            self,
            **rows,
            gaps_ms=self.gaps_ms[inside],
            gap_end_ns=self.gap_end_ns[inside],
            gap_request=place[self.gap_request[inside]],
        )


_GAPS = ("gaps_ms", "gap_end_ns", "gap_request")
_ROWS = tuple(field.name for field in fields(Numbers) if field.name not in _GAPS)


def numbers_of(requests: Mapping[str, npt.NDArray[Any]], tokens: Tokens) -> Numbers:
    """``requests``: columns ``pair index scheduled_ns sent_ns end_ns status warmup request_id output_tokens`` of one
    arm, absent values as NaN. Tokens of requests that are not among them are left out.

    Raises ``ValueError`` when a request is in the table twice.
    """
    at, starts, sizes, tokens = _groups(requests["pair"], requests["index"], tokens)
    n = len(requests["index"])
    first, second, last, n_first, worst = (np.full(n, np.nan) for _ in range(5))
    counted = np.zeros(n)
    gap, inside = _gaps(tokens.t_ns, starts)
    if len(starts):
        first[at], last[at] = tokens.t_ns[starts], tokens.t_ns[starts + sizes - 1]
        n_first[at] = tokens.n_tokens[starts]
        counted[at] = np.add.reduceat(tokens.n_tokens, starts)
        more = sizes > 1
        second[at[more]] = tokens.t_ns[starts[more] + 1]
        if more.any():
            begins = np.cumsum(sizes[more] - 1) - (sizes[more] - 1)
            worst[at[more]] = np.maximum.reduceat(gap, begins)
    reported = requests["output_tokens"].astype(np.float64)
    spread = np.where(np.isnan(reported), counted, reported) - n_first
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where((spread > 0) & ~np.isnan(second), (last - first) / spread, np.nan)
    completed = (requests["status"] == "ok") & ~np.isnan(first)
    scheduled = requests["scheduled_ns"].astype(np.float64)

    def judged(values_ns: Floats) -> Floats:
        return np.asarray(np.where(completed, values_ns, np.inf) / NS_PER_MS, dtype=np.float64)

    return Numbers(
        pair=requests["pair"],
        index=requests["index"],
        scheduled_ns=requests["scheduled_ns"],
        sent_ns=requests["sent_ns"].astype(np.float64),
        end_ns=requests["end_ns"].astype(np.float64),
        status=requests["status"],
        warmup=requests["warmup"].astype(bool),
        request_id=requests["request_id"],
        ttft_ms=judged(first - scheduled),
        service_ttft_ms=judged(first - requests["sent_ns"].astype(np.float64)),
        tpot_ms=judged(tpot),
        worst_gap_ms=judged(worst),
        e2e_ms=judged(last - scheduled),
        ttst_ms=judged(second - scheduled),
        handoff_gap_ms=judged(second - first),
        gaps_ms=gap / NS_PER_MS,
        gap_end_ns=tokens.t_ns[inside],
        gap_request=np.repeat(at, np.maximum(sizes - 1, 0)),
    )


def _gaps(t_ns: Ints, starts: Ints) -> tuple[Floats, Flags]:
    """Every gap inside a request, and which tokens end one."""
    inside = np.ones(len(t_ns), dtype=bool)
    inside[starts] = False
    return np.diff(t_ns, prepend=0)[inside].astype(np.float64), inside


def _groups(pair: Ints, index: Ints, tokens: Tokens) -> tuple[Ints, Ints, Ints, Tokens]:
    """Tokens grouped by request: the request's row, start and size of each group, and the tokens so ordered.

    As a run stores them they are grouped already; where they are not, they are put in order of request, keeping the
    order of arrival inside.
    """
    starts = _begins(tokens.pair, tokens.index)
    keys = _keys(tokens.pair[starts], tokens.index[starts])
    if len(np.unique(keys)) != len(keys):
        order = np.argsort(_keys(tokens.pair, tokens.index), kind="stable")
        tokens = Tokens(*(getattr(tokens, field.name)[order] for field in fields(Tokens)))
        starts = _begins(tokens.pair, tokens.index)
        keys = _keys(tokens.pair[starts], tokens.index[starts])
    sizes = np.diff(np.append(starts, len(tokens)))
    mine = _keys(pair, index)
    order = np.argsort(mine, kind="stable")
    if len(mine) and (np.diff(mine[order]) == 0).any():
        raise ValueError("a request appears twice in the table")
    if not len(mine):
        return starts[:0], starts[:0], sizes[:0], Tokens(*(np.zeros(0, np.int64) for _ in fields(Tokens)))
    place = np.minimum(np.searchsorted(mine[order], keys), len(mine) - 1)
    at = order[place].astype(np.int64)
    known = mine[at] == keys
    if not known.all():
        kept = np.repeat(known, sizes)
        tokens = Tokens(*(getattr(tokens, field.name)[kept] for field in fields(Tokens)))
        at, sizes = at[known], sizes[known]
        starts = np.cumsum(sizes) - sizes
    return at, starts, sizes, tokens


def _begins(pair: Ints, index: Ints) -> Ints:
    """Where another request's tokens begin."""
    if not len(index):
        return np.zeros(0, dtype=np.int64)
    changes = (np.diff(index) != 0) | (np.diff(pair) != 0)
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)


def _keys(pair: Ints, index: Ints) -> Ints:
    """Pair and index as one number; a run has fewer than 2**40 requests and 2**22 pairs."""
    return np.asarray((pair.astype(np.int64) << 40) | index.astype(np.int64), dtype=np.int64)
