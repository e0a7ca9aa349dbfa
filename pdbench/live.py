"""The live view of a run: what an arm shows while it runs, who is shown it, and how it follows from deltas.

The faces (a drawn table, lines, silence) are in ``report/progress.py``; verbs know only this protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from pdbench.livestate import JUDGED_LIVE, keeps_all
from pdbench.load.histogram import LiveHistogram
from pdbench.measure.slo import Objective

if TYPE_CHECKING:
    from pdbench.load.delta import Delta


@dataclass(frozen=True, slots=True)
class ArmView:
    """One arm, now. Latencies are live estimates in ms (None: nothing seen yet). ``in_limits``: of the requests that
    ended, the share within the limits on single requests, as far as these are known before the run is over."""

    name: str
    state: str = "waiting"
    pair: int = 0
    pairs: int = 1
    done: int = 0
    total: int = 0
    failed: int = 0
    ttft_p90_ms: float | None = None
    tpot_p90_ms: float | None = None
    gap_p90_ms: float | None = None
    in_limits: float | None = None


class Progress(Protocol):
    def event(self, text: str) -> None:
        """Something happened: a server starts, a pair ends, a warning."""
        ...

    def show(self, view: ArmView) -> None:
        """How far an arm is."""
        ...

    def close(self) -> None: ...


class Live:
    """Call it with each delta; it shows the arm."""

    def __init__(
        self, progress: Progress, name: str, pair: int, pairs: int, total: int, objectives: Sequence[Objective] = ()
    ) -> None:
        self._progress = progress
        self.view = ArmView(name=name, state="running", pair=pair, pairs=pairs, total=total)
        self._ttft = LiveHistogram()
        self._gaps = LiveHistogram()
        self._tpot_ms: list[float] = []
        self._objectives = [one for one in objectives if one.metric in JUDGED_LIVE]
        self._ended = self._good = 0
        progress.show(self.view)

    def __call__(self, delta: Delta) -> None:
        self._ttft.merge(delta.ttft_hdr)
        self._gaps.merge(delta.tbt_hdr)
        for one in delta.done:
            if one.warmup:
                continue
            if one.tpot_ms is not None:
                self._tpot_ms.append(one.tpot_ms)
            self._ended += 1
            self._good += keeps_all(one, self._objectives)
        ranked = sorted(self._tpot_ms)
        self.view = replace(
            self.view,
            done=delta.ok + delta.failed,
            failed=delta.failed,
            ttft_p90_ms=self._ttft.percentiles_ms(90.0)[0],
            tpot_p90_ms=ranked[-(-9 * len(ranked) // 10) - 1] if ranked else None,
            gap_p90_ms=self._gaps.percentiles_ms(90.0)[0],
            in_limits=self._good / self._ended if self._ended and self._objectives else None,
        )
        self._progress.show(self.view)

    def end(self, state: str) -> None:
        self.view = replace(self.view, state=state)
        self._progress.show(self.view)
