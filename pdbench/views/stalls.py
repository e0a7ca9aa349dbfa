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
over the usual gap) is given as well, with what chance would give of it: each stall's own chance, weighted by its loss.

**How sure is that?** One prompt stalls all streams of its device at once, so stalls are no independent trials. Those of
a device that overlap in time are one moment, and a share rests on as many trials as its moments weigh (Kish's effective
number, 1 / sum of squared weights: ten moments of which one holds nearly all of the time lost are little more than
one). Of fewer than ten stalls, or of such as weigh as fewer than five, nothing is said; else Wilson's 95 % interval
must leave out what chance would give.
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
from pdbench.stats.proportions import wilson
from pdbench.units import NS_PER_MS, NS_PER_S
from pdbench.views.devices import Spans, device_names, name_of, of_pair, prefill_spans
from pdbench.views.numbers import Flags, Numbers, Texts

STALL_FACTOR = 3.0
"""Two tokens that arrive in one read make one gap of twice the usual length; three times is beyond that."""
LEAST_STALLS, LEAST_TRIALS = 10, 5.0
"""A share that rests on fewer stalls, or on fewer independent trials, is not held against chance."""
_TOUCH_S = 1e-6
_PLACES = 200_000
_ALWAYS = 0.9  # by chance alone nearly every stall would meet a prefill: then nothing can be told


@dataclass(frozen=True, slots=True)
class LiningUp:
    """What is known of the stalls. ``known``: stalls whose device the server tells; ``aligned`` of these overlap a
    prefill on it, with ``lost_share`` of the time lost in them; ``expected_share`` and ``expected_lost_share`` are what
    chance would give. ``moments``: the known stalls, those of a device that overlap in time counted once. ``handoffs``:
    stalls from a request's first to its second token across two workers. Shares are ``None`` where there is nothing to
    take a share of, and ``sentence`` says why."""

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
    expected_lost_share: float | None = None
    moments: int = 0


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
    stalls = handoffs = 0
    longest, told, busy = 0.0, False, False
    parts: list[_Known] = []
    for gaps, steps, t0_ns in runs:
        told |= len(steps) > 0
        long = np.flatnonzero(gaps.gap_ms > limit)
        stalls += len(long)
        handoffs += int(gaps.handoff[long].sum())
        longest = max(longest, float(gaps.gap_ms[long].max(initial=0.0)))
        spans = prefill_spans(steps, t0_ns or 0)
        for at, device in enumerate(gaps.devices if len(steps) else ()):
            busy |= device in spans and bool((gaps.place == at).any())
            parts.append(_of_device(gaps, long[gaps.place[long] == at], at, spans.get(device), limit))
    count, time = _weighed(parts, by_time=False), _weighed(parts, by_time=True)
    said = _sentence(limit, stalls, longest, handoffs, count, time, busy=busy, told=told)
    known = count.known > 0
    return LiningUp(
        limit_ms=limit,
        stalls=stalls,
        known=count.known,
        aligned=count.aligned,
        handoffs=handoffs,
        aligned_share=count.share if known else None,
        expected_share=count.chance if known else None,
        lost_share=time.share if known else None,
        longest_ms=longest if stalls else None,
        sentence=said,
        expected_lost_share=time.chance if known else None,
        moments=count.moments,
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """The stalls of one device in one run: whether each overlaps a prefill, how likely by chance, what it lost, and
    the number of its moment."""

    hit: Flags
    chance: Floats
    lost_ms: Floats
    moment: Ints


def _of_device(gaps: Placed, mine: Ints, at: int, spans: Spans | None, limit: float) -> _Known:
    start, end = gaps.start_s[mine], gaps.end_s[mine]
    hit, chance = np.zeros(len(mine), dtype=bool), np.zeros(len(mine))
    if spans is not None and len(mine):
        hit = overlapping(start, end, spans)
        chance = by_chance(end - start, gaps.start_s[gaps.place == at], spans)
    return _Known(hit, chance, gaps.gap_ms[mine] - limit / STALL_FACTOR, moments(start, end))


def moments(start_s: Floats, end_s: Floats) -> Ints:
    """The number of each interval's group, from 0: those that overlap, directly or through others, are one (touching
    ends are no overlap)."""
    order = np.argsort(start_s, kind="stable")
    until = np.maximum.accumulate(end_s[order])
    group: Ints = np.zeros(len(order), dtype=np.int64)
    group[order[1:]] = np.cumsum(start_s[order[1:]] > until[:-1] - _TOUCH_S)
    return group


@dataclass(frozen=True, slots=True)
class _Share:
    """A share of stalls, or of the time lost in them, what chance would give, and how many trials it rests on."""

    known: int
    aligned: int
    moments: int
    share: float
    chance: float
    trials: float

    @property
    def few(self) -> bool:
        return self.known < LEAST_STALLS or self.trials < LEAST_TRIALS

    @property
    def more(self) -> bool:
        """Beyond chance, as far as the trials tell."""
        return not self.few and wilson(min(max(self.share, 0.0), 1.0), self.trials)[0] > self.chance


def _weighed(parts: Sequence[_Known], *, by_time: bool) -> _Share:
    """All devices and runs together, each stall counted as one or by what it lost."""
    known, aligned = sum(len(one.hit) for one in parts), sum(int(one.hit.sum()) for one in parts)
    weights = [one.lost_ms if by_time else np.ones(len(one.hit)) for one in parts]
    total = sum(float(weight.sum()) for weight in weights)
    if not total > 0:
        return _Share(known, aligned, 0, 0.0, 0.0, 0.0)
    each = [np.bincount(one.moment, weights=weight) for one, weight in zip(parts, weights, strict=True)]
    pairs = list(zip(parts, weights, strict=True))
    return _Share(
        known,
        aligned,
        sum(len(one) for one in each),
        sum(float(weight[one.hit].sum()) for one, weight in pairs) / total,
        sum(float(one.chance @ weight) for one, weight in pairs) / total,
        total * total / sum(float(one @ one) for one in each),
    )


def overlapping(start_s: Floats, end_s: Floats, spans: Spans) -> Flags:
    """Whether each interval has an instant in common with a span (touching ends have none)."""
    # The only candidate is the last span that begins before the interval ends: earlier ones end earlier.
    before = np.searchsorted(spans.start_s, end_s, side="left") - 1
    reached = np.concatenate([[-np.inf], spans.end_s])
    return np.asarray(reached[before + 1] > start_s, dtype=bool)


def by_chance(length_s: Floats, begins_s: Floats, spans: Spans) -> Floats:
    """For stalls of these lengths, the share of places ``begins_s`` from which they would overlap a span.

    Of very many places a seeded sample is tried, which is sharp to a fifth of a point. (Every k-th would not do:
    streams of equal length have their first gaps at every k-th place.)
    """
    if not len(begins_s) or not len(spans):
        return np.zeros(len(length_s))
    if len(begins_s) > _PLACES:
        begins_s = begins_s[np.random.default_rng(0).integers(len(begins_s), size=_PLACES)]
    following = np.searchsorted(spans.end_s, begins_s, side="right")
    starts = np.append(spans.start_s, np.inf)[following]
    away = np.sort(np.maximum(starts - begins_s, 0.0))
    return np.asarray(np.searchsorted(away, length_s, side="left") / len(begins_s), dtype=np.float64)


def _sentence(
    limit: float, stalls: int, longest: float, handoffs: int, count: _Share, time: _Share, *, busy: bool, told: bool
) -> str:
    if not limit > 0:
        return "No token gap was measured."
    if not stalls:
        return f"No gap is longer than {_ms(limit)}: there is no stall to explain."
    what = f"{_plural(stalls, 'stall')} (gaps above {_ms(limit)}, the longest {_ms(longest)})"
    if not told:
        return f"{what}; the server tells no steps (pdserve does), so whether they line up with prefill is not known."
    if not count.known:
        return f"{what}; the server's records do not tell which device they come from."
    unknown = f"; of {stalls - count.known:,} more the device is not known" if stalls > count.known else ""
    cause = f" {handoffs:,} of them span{'s' * (handoffs == 1)} the hand-off to the decode worker." if handoffs else ""
    if not busy:
        have = "has" if count.known == 1 else "have"
        return f"No prefill runs on the devices that decode: {what} {have} another cause{unknown}.{cause}"
    overlap = f"overlap{'s' * (count.aligned == 1)} a prefill on"
    bracket = f"(a stall is a gap above {_ms(limit)}, the longest is {_ms(longest)})"
    if count.known < LEAST_STALLS:
        return (
            f"{count.aligned:,} of {_plural(count.known, 'stall')} {overlap} their device: too few to tell"
            f" from chance, by which {_pc(count.chance)} would {bracket}{unknown}.{cause}"
        )
    return (
        f"{count.aligned:,} of {_plural(count.known, 'stall')} ({_pc(count.share)}, and {_pc(time.share)} of the time"
        f" lost in stalls) {overlap} their device; by chance {_pc(count.chance)} would, with"
        f" {_pc(time.chance)} of the time: {_weight(count, time)} {bracket}{unknown}.{cause}"
    )


def _weight(count: _Share, time: _Share) -> str:
    """What the two shares allow to say. They may differ: the long stalls are few."""
    if count.few:
        return f"too few to tell (most came together: they weigh as {count.trials:.0f})"
    if count.chance >= _ALWAYS:
        return "prefill runs nearly all the time, so this tells little"
    if count.more:
        return "more than chance" if time.more else "more than chance in number, in time it cannot be told"
    if time.more:
        return "more than chance in time, though not in number"
    if time.few:
        return "cannot be told from chance (a few long ones hold most of the time)"
    if count.share <= count.chance and time.share <= time.chance:
        return "no more than chance"
    return "cannot be told from chance"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _pc(share: float) -> str:
    return f"{100 * share:.0f} %"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
