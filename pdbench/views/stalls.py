"""Do the stalls of an arm line up with prefill on the device that decodes? Counted, and held against chance.

**A stall** is a gap between two tokens longer than three times the median gap. The limit may be given, so that arms are
held to one and the same (``stall_limit_ms``). A percentile would not do: every arm has 1 % of its gaps above its P99,
also one that never stalls.

**It lines up** when a step with prompt tokens ran on its own device while it lasted. On a device that prefills often
many gaps would do so by accident, and a long gap more easily than a short one. So beside the share that lines up stands
the share that **chance** would give: were a gap of that length to begin where any other gap of that device began, how
often would it meet a prefill? Every measured gap of the device is tried as a place (not every instant: a device that
prefills has no stream to stall while it has none), so no random numbers are needed. Gaps that a prompt did stall are
places, too, which makes chance rather too large than too small.

Stalls come in all lengths, and a busy machine makes many short ones. So the share of the *time* lost (what stalls have
over the usual gap) is given as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdbench.measure.latency import Floats, Ints
from pdbench.measure.lifecycles import column
from pdbench.measure.slo import Objective
from pdbench.units import NS_PER_MS, NS_PER_S
from pdbench.views.devices import Spans, device_names, name_of, of_pair, prefill_spans
from pdbench.views.numbers import Flags, Numbers, Texts

STALL_FACTOR = 3.0
"""Two tokens that arrive in one read make one gap of twice the usual length; three times is beyond that."""


@dataclass(frozen=True, slots=True)
class LiningUp:
    """What is known of the stalls. ``known``: stalls whose device the server tells; ``aligned`` of these overlap a
    prefill on it, with ``lost_share`` of the time lost in them; ``handoffs``: stalls from a request's first to its
    second token across two workers. Shares are ``None`` where there is nothing to take a share of, and ``sentence``
    says why."""

    limit_ms: float
    stalls: int
    known: int
    aligned: int
    handoffs: int
    aligned_share: float | None
    expected_share: float | None
    lost_share: float | None
    longest_ms: float | None
    sentence: str


def stall_limit_ms(arms: Sequence[Numbers]) -> float:
    """One limit for all arms of a comparison: three times the median of all their measured gaps; NaN without a gap."""
    gaps = [arm.measured().gaps_ms for arm in arms]
    gaps_ms = gaps[0] if len(gaps) == 1 else np.concatenate(gaps or [np.zeros(0)])
    if not len(gaps_ms):
        return math.nan
    middle = (len(gaps_ms) - 1) // 2  # the nearest rank, as ``measure.latency.percentile``, without sorting millions
    return STALL_FACTOR * float(np.partition(gaps_ms, middle)[middle])


def slo_limit_ms(objectives: Iterable[Objective]) -> float | None:
    """The other limit worth a sentence: the tightest that the SLO sets on a request's worst gap. Declared before the
    run, it leaves out the small stalls of a noisy machine. ``None`` where the SLO sets none."""
    limits = [one.limit_ns for one in objectives if one.metric == "worst_gap" and one.limit_ns]
    return min(limits) / NS_PER_MS if limits else None


@dataclass(frozen=True, slots=True)
class Placed:
    """The measured gaps of one run with their places: seconds since its first due instant, and device. A gap holds
    numbers, not names, since there may be millions: ``request_id[row[m]]``, ``devices[place[m]]`` (-1: unknown).
    ``handoff``: from the first token to the second, from one worker to another."""

    start_s: Floats
    end_s: Floats
    gap_ms: Floats
    row: Ints
    request_id: Texts
    place: Ints
    devices: tuple[str, ...]
    handoff: Flags

    def device_of(self, kept: Ints) -> Texts:
        """The names of the devices of some gaps, "" where it is not known."""
        return np.array([*self.devices, ""], dtype=object)[self.place[kept]]


def placed(numbers: Numbers, lifecycles: pd.DataFrame, steps: pd.DataFrame, pair: int) -> Placed:
    """Every measured gap of a run, in the order of ``numbers``."""
    t0 = numbers.t0_ns(pair) or 0
    mine = numbers.only((numbers.pair == pair) & ~numbers.warmup)
    place, devices, crossed = _devices(mine, of_pair(lifecycles, pair), device_names(of_pair(steps, pair)))
    row = mine.gap_request
    end = (mine.gap_end_ns - t0) / NS_PER_S
    first = np.diff(row, prepend=-1) != 0
    return Placed(
        start_s=end - mine.gaps_ms * NS_PER_MS / NS_PER_S,
        end_s=end,
        gap_ms=mine.gaps_ms,
        row=row,
        request_id=mine.request_id,
        place=place[row],
        devices=devices,
        handoff=first & crossed[row],
    )


def _devices(numbers: Numbers, lifecycles: pd.DataFrame, names: dict[int, str]) -> tuple[Ints, tuple[str, ...], Flags]:
    """Per request of one run the device that decoded it (by number, -1 unknown), the devices' names, and whether it was
    handed from one worker to another."""
    place, crossed = np.full(len(numbers), -1, dtype=np.int64), np.zeros(len(numbers), dtype=bool)
    if not len(lifecycles) or "request_id" not in lifecycles:
        return place, (), crossed
    decoder, first = column(lifecycles, "decode_worker"), column(lifecycles, "prefill_worker")
    decoder = np.where(np.isnan(decoder), first, decoder)
    moved = ~np.isnan(column(lifecycles, "transfer_end_ns")) | (~np.isnan(first) & (decoder != first))
    row_of = {name: row for row, name in enumerate(lifecycles["request_id"].tolist())}
    rows = np.array([row_of.get(name, -1) for name in numbers.request_id.tolist()], dtype=np.int64)
    found = rows >= 0
    workers, which = np.unique(decoder, return_inverse=True)
    device = [name_of(worker, names) for worker in workers]
    devices = tuple(sorted(set(device) - {""}))
    number = np.array([devices.index(name) if name else -1 for name in device], dtype=np.int64)
    place[found], crossed[found] = number[which[rows[found]]], moved[rows[found]]
    return place, devices, crossed


def lining_up(
    numbers: Numbers,
    lifecycles: pd.DataFrame,
    steps: pd.DataFrame,
    pairs: Sequence[int] | None = None,
    *,
    limit_ms: float | None = None,
) -> LiningUp:
    """The verdict on one arm, over the runs given (all of them, if none are): see the module's text for the rule."""
    chosen = numbers.pairs if pairs is None else list(pairs)
    runs = ((placed(numbers, lifecycles, steps, pair), of_pair(steps, pair), numbers.t0_ns(pair)) for pair in chosen)
    limit = stall_limit_ms([numbers.of_pairs(chosen)]) if limit_ms is None else limit_ms
    return judged(runs, limit)


def judged(runs: Iterable[tuple[Placed, pd.DataFrame, int | None]], limit: float) -> LiningUp:
    """The verdict on runs: the gaps of each, its steps, and its first due instant."""
    stalls = known = aligned = handoffs = 0
    expected, longest, busy, told = 0.0, 0.0, False, False
    lost = {True: 0.0, False: 0.0}
    for gaps, steps, t0_ns in runs:
        told |= len(steps) > 0
        long = np.flatnonzero(gaps.gap_ms > limit)
        stalls += len(long)
        handoffs += int(gaps.handoff[long].sum())
        longest = max(longest, float(gaps.gap_ms[long].max(initial=0.0)))
        spans = prefill_spans(steps, t0_ns or 0)
        for at, device in enumerate(gaps.devices if len(steps) else ()):
            mine = long[gaps.place[long] == at]
            known += len(mine)
            hit = np.zeros(len(mine), dtype=bool)
            if device in spans and (gaps.place == at).any():
                busy = True
                start, end = gaps.start_s[mine], gaps.end_s[mine]
                hit = overlapping(start, end, spans[device])
                expected += float(by_chance(end - start, gaps.start_s[gaps.place == at], spans[device]).sum())
            aligned += int(hit.sum())
            for overlaps in lost:
                lost[overlaps] += float((gaps.gap_ms[mine[hit == overlaps]] - limit / STALL_FACTOR).sum())
    share, chance = (aligned / known, expected / known) if known else (None, None)
    part = lost[True] / sum(lost.values()) if known else None
    said = _sentence(limit, stalls, known, aligned, handoffs, longest, expected, part or 0.0, busy=busy, told=told)
    return LiningUp(limit, stalls, known, aligned, handoffs, share, chance, part, longest if stalls else None, said)


def overlapping(start_s: Floats, end_s: Floats, spans: Spans) -> Flags:
    """Whether each interval has an instant in common with a span (touching ends have none)."""
    # The only candidate is the last span that begins before the interval ends: earlier ones end earlier.
    before = np.searchsorted(spans.start_s, end_s, side="left") - 1
    reached = np.concatenate([[-np.inf], spans.end_s])
    return np.asarray(reached[before + 1] > start_s, dtype=bool)


def by_chance(length_s: Floats, begins_s: Floats, spans: Spans) -> Floats:
    """For stalls of these lengths, the share of places ``begins_s`` from which they would overlap a span."""
    if not len(begins_s) or not len(spans):
        return np.zeros(len(length_s))
    following = np.searchsorted(spans.end_s, begins_s, side="right")
    starts = np.append(spans.start_s, np.inf)[following]
    away = np.sort(np.maximum(starts - begins_s, 0.0))
    return np.asarray(np.searchsorted(away, length_s, side="left") / len(begins_s), dtype=np.float64)


def _sentence(
    limit: float, stalls: int, known: int, aligned: int, handoffs: int, longest: float, expected: float, lost: float,
    *, busy: bool, told: bool,
) -> str:  # fmt: skip
    if not limit > 0:
        return "No token gap was measured."
    if not stalls:
        return f"No gap is longer than {limit:.3g} ms: there is no stall to explain."
    what = f"{stalls} stall{'s' * (stalls != 1)} (gaps above {limit:.3g} ms, the longest {longest:.4g} ms)"
    if not told:
        return f"{what}; the server tells no steps (pdserve does), so whether they line up with prefill is not known."
    if not known:
        return f"{what}; the server's records do not tell which device they come from."
    unknown = f"; of {stalls - known} more the device is not known" if stalls > known else ""
    cause = f" {handoffs} of them span the hand-off to the decode worker." if handoffs else ""
    if not busy:
        have = "has" if known == 1 else "have"
        return f"No prefill runs on the devices that decode: {what} {have} another cause{unknown}.{cause}"
    share, chance = aligned / known, expected / known
    return (
        f"{aligned} of {known} stalls ({100 * share:.0f} %, and {100 * lost:.0f} % of the time lost in stalls) overlap"
        f" a prefill on their device; by chance {100 * chance:.0f} % would{_weight(share, chance)} (a stall is a gap"
        f" above {limit:.3g} ms, the longest is {longest:.4g} ms){unknown}.{cause}"
    )


def _weight(share: float, chance: float) -> str:
    if chance >= 0.9:
        return ", since prefill runs nearly all the time: this tells little"
    return ": no more than chance" if share <= chance else ""
