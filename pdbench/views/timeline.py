"""The interference picture: every token gap of one run over time, above the prefill that its device ran meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pdbench.measure.latency import Floats
from pdbench.views.devices import Spans, of_pair, prefill_spans
from pdbench.views.numbers import Flags, Numbers, Texts
from pdbench.views.stalls import LiningUp, judged, placed, stall_limit_ms
from pdbench.views.thin import thin

LIMIT = 4000
_SPANS = 2000
# A page is about a thousand points wide: what lies nearer than half of one cannot be told apart.
_UNSEEN = 1 / 2000


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run. A point a gap: where it ended (seconds since the first due instant), how long it was, which device
    decoded it ("" where the server does not tell), of which request, whether it is a stall. ``gaps`` counts all, the
    points may be fewer (extremes are kept). ``prefill``: by device, when it ran prompts. ``notes`` say what is left
    out or missing."""

    pair: int
    time_s: Floats
    gap_ms: Floats
    device: Texts
    request: Texts
    stall: Flags
    gaps: int
    prefill: Mapping[str, Spans]
    verdict: LiningUp
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def devices(self) -> list[str]:
        """Every device in the picture, by name."""
        return sorted(({str(name) for name in self.device} - {""}) | set(self.prefill))

    @property
    def sentence(self) -> str:
        """Whether stalls line up with prefill, in words."""
        return self.verdict.sentence

    @property
    def aligned_share(self) -> float | None:
        return self.verdict.aligned_share

    @property
    def expected_share(self) -> float | None:
        return self.verdict.expected_share


def timeline(
    numbers: Numbers,
    lifecycles: pd.DataFrame,
    steps: pd.DataFrame,
    pair: int,
    *,
    limit: int = LIMIT,
    limit_ms: float | None = None,
) -> Timeline:
    """The picture of one run, warm-up left out. ``limit``: points at most; ``limit_ms``: from which gap on it is a
    stall (``stalls.stall_limit_ms`` gives one for several arms)."""
    gaps = placed(numbers, lifecycles, steps, pair)
    kept = thin(gaps.end_s, gaps.gap_ms, limit)
    here, t0 = of_pair(steps, pair), numbers.t0_ns(pair) or 0
    limit_ms = stall_limit_ms([numbers.of_pairs([pair])]) if limit_ms is None else limit_ms
    verdict = judged([(gaps, here, t0)], limit_ms)
    prefill = prefill_spans(here, t0)
    notes = []
    if len(kept) < len(gaps.gap_ms):
        notes.append(f"{len(kept)} of {len(gaps.gap_ms)} gaps are drawn; in every stretch the longest is among them")
    if any(len(spans) > _SPANS for spans in prefill.values()):
        width = max(float(spans.end_s[-1]) for spans in prefill.values())
        prefill = prefill_spans(here, t0, near_s=width * _UNSEEN)
        notes.append("prefill spans too near to be told apart are drawn as one")
    if not len(here):
        notes.append("no server data: pdserve tells its steps, other servers do not, so no prefill is shaded")
    elif (missing := int(np.sum(gaps.place < 0))) and len(gaps.gap_ms):
        notes.append(f"the server keeps no record of the requests of {missing} gaps")
    return Timeline(
        pair=pair,
        time_s=gaps.end_s[kept],
        gap_ms=gaps.gap_ms[kept],
        device=gaps.device_of(kept),
        request=gaps.request_id[gaps.row[kept]],
        stall=gaps.gap_ms[kept] > verdict.limit_ms,
        gaps=len(gaps.gap_ms),
        prefill=prefill,
        verdict=verdict,
        notes=tuple(notes),
    )
