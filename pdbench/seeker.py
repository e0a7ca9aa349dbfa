"""One arm on the way to its crossing: the runs it made, which one comes next, and why it stopped. Pure.

``stats.rates`` says where to look; here an INVALID run is dealt with: it is offered once more, then the rate is
tried under other seeds, and where none is VALID the rate is given up: the client cannot measure it. Where nothing
else is left to run, the arm stops and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pdbench.measure.validity import Validity
from pdbench.stats.goodput import Goodput, RateRun, fit_goodput
from pdbench.stats.rates import next_rates

Document = dict[str, Any]

# A run that was INVALID twice is left alone; a rate that was so under four seeds is beyond what can be measured here.
_ATTEMPTS, _SEEDS = 2, 4


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one arm. ``pair``: its plan's number; ``seed``: the draw, the same at every rate; ``joint``: the
    share of requests that kept the whole SLO (``None``: no request was offered)."""

    pair: int
    rate: float
    seed: int
    joint: float | None
    requests: dict[str, int]
    ttft_p90_ms: float | None
    validity: Validity
    seconds: float

    @property
    def used(self) -> bool:
        """Whether it may count: the measurement is sound, whatever the server did."""
        return self.validity.valid and self.joint is not None

    @property
    def rate_run(self) -> RateRun:
        """As ``stats.goodput`` takes it. ``ValueError`` for a run that may not be used."""
        if self.joint is None or not self.validity.valid:
            raise ValueError("an INVALID run says nothing about the server")
        return RateRun(self.rate, self.joint, self.seed, max(1, self.requests["scheduled"]))

    def document(self) -> Document:
        return {
            "pair": self.pair, "rate": self.rate, "seed": self.seed, "joint": rounded(self.joint), **self.requests,
            "ttft_p90_ms": self.ttft_p90_ms, "used": self.used, "validity": self.validity.document(),
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


class Seeker:
    """One arm on the way to its crossing: what it runs next, and why it stopped. Knows nothing of servers."""

    def __init__(self, name: str, start_rate: float, share: float, target: float) -> None:
        self.name = name
        self.trials: list[Trial] = []
        self.stopped: str | None = None
        self._start_rate, self._share, self._target = start_rate, share, target
        self._queue: list[tuple[float, int]] = []
        self._failed: dict[tuple[float, int], int] = {}

    def next(self, left: int) -> tuple[float, int] | None:
        """Rate and seed of the next run, with ``left`` runs of the budget left; ``None`` once it stopped."""
        if self.stopped is None and not self._queue:
            self._plan_on(left)
        if self.stopped is None and left < 1:
            self.stopped = f"budget of runs used; {self._reached()}"
        return None if self.stopped is not None else self._queue[0]

    def add(self, trial: Trial) -> None:
        """The outcome of the run that ``next`` named."""
        self.trials.append(trial)
        key = self._queue.pop(0)
        if trial.used:
            return
        self._failed[key] = self._failed.get(key, 0) + 1
        if self._failed[key] < _ATTEMPTS:
            self._queue.insert(0, key)

    def stop(self, reason: str) -> None:
        self.stopped = f"{reason}; {self._reached()}"

    def goodput(self, *, certify: bool = False) -> Goodput | None:
        """As known by now; ``None`` without a VALID run."""
        runs = [trial.rate_run for trial in self.trials if trial.used]
        return fit_goodput(runs, share=self._share, certify=certify) if runs else None

    def _plan_on(self, left: int) -> None:
        runs = [trial.rate_run for trial in self.trials if trial.used]
        seeds = len({run.seed for run in runs})
        wanted: float | None = None
        for seed in range(seeds + _SEEDS):
            step = next_rates(
                runs,
                start_rate=self._start_rate,
                budget=len(runs) + max(left, 1),
                share=self._share,
                target=self._target,
                first_seed=seed,
            )
            if not step.runs:
                self.stopped = step.reason
                return
            keys = list(step.runs)
            if step.goodput is not None and step.goodput.where != "resolved":
                keys.append((keys[0][0], seed))  # a bracket step is always under the seed that brought it there
            self._queue = [key for key in keys if self._worth(*key)][: len(step.runs)]
            wanted = wanted or step.runs[0][0]
            if self._queue:
                return
        self.stop(f"no VALID run at {wanted:.3g} req/s")

    def _worth(self, rate: float, seed: int) -> bool:
        """Whether a run can be hoped to be VALID, by those that were tried."""
        done = any((trial.rate, trial.seed) == (rate, seed) and trial.used for trial in self.trials)
        if done or self._failed.get((rate, seed), 0) >= _ATTEMPTS:
            return False
        failed = sum(count for (one, _), count in self._failed.items() if one == rate)
        return failed < _ATTEMPTS * _SEEDS or any(trial.used and trial.rate == rate for trial in self.trials)

    def _reached(self) -> str:
        found = self.goodput()
        half = found.half_width if found else None
        return "no half-width yet" if half is None else f"half-width {half:.1%}"


def rounded(value: float | None) -> float | None:
    """Six digits behind the point are more than any of these figures has."""
    return None if value is None else round(value, 6)
