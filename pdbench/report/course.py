"""How far a whole call is and how long it may still take, from what its arms show. Time is an argument.

A comparison makes as many runs as it has arms times pairs, all of about the same length, so the share of them that is
done tells the rest. Where the number of runs is found on the way (``search``, ``tune``) nothing is foretold; where
planned looks may end it early (``--pairs auto``, ``gate``) it is an upper limit.
"""

from __future__ import annotations

from typing import Literal

from pdbench.live import ArmView

Runs = Literal["all", "at most", "open"]
_ENOUGH = 0.02  # of the runs, before anything is foretold
_ENOUGH_S = 3.0


class Course:
    """``runs``: whether ``ArmView.pairs`` is the number of pairs to come, the most there may be, or says nothing."""

    def __init__(self, runs: Runs = "open") -> None:
        self.views: dict[str, ArmView] = {}
        self._runs = runs
        self._first_s: float | None = None

    def see(self, view: ArmView, now_s: float) -> None:
        self.views[view.name] = view
        if view.total and self._first_s is None:
            self._first_s = now_s

    @property
    def begun(self) -> bool:
        """Whether the first run has begun."""
        return self._first_s is not None

    def share(self) -> float | None:
        """Of all runs; None where it is not known, and while pairs beyond the plan are run."""
        views = self.views.values()
        pairs = max((view.pairs for view in views), default=0)
        if self._runs == "open" or not self.begun or pairs != min(view.pairs for view in views):
            return None
        return min(sum(map(_pairs_done, views)) / (len(views) * pairs), 1.0)

    def left_s(self, now_s: float) -> float | None:
        """The rest, if it goes on as it went."""
        share = self.share()
        if share is None or self._first_s is None or not _ENOUGH <= share < 1 or now_s - self._first_s < _ENOUGH_S:
            return None
        return (now_s - self._first_s) * (1 - share) / share

    def told(self, now_s: float) -> str:
        """``"38 % done, about 3:05 left"``; ``""`` where nothing can be foretold."""
        share, left_s = self.share(), self.left_s(now_s)
        if share is None:
            return ""
        most = "at most " if self._runs == "at most" else ""
        # One that looks may end early is no share of a whole that is known.
        done = "" if most else f"{100 * share:.0f} % done"
        left = "" if left_s is None else f"{most or 'about '}{clock(left_s)} left"
        return ", ".join(part for part in (done, left) if part)


def _pairs_done(view: ArmView) -> float:
    """Of one arm, the pair that is running by its requests."""
    return view.pair + view.done / view.total if view.total else 0.0


def clock(seconds: float) -> str:
    """``"0:07"``, ``"12:30"``, ``"1:02:03"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
