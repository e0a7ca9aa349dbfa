"""One run at a time: started by a form, stopped by a button, its rate edited meanwhile, its result kept for the pages.

Verbs run in a thread of their own. Everything public is called from the page's thread and returns at once; what takes
longer (checking a form asks ``pdserve check``) is put aside by whoever calls.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from pdbench.compare import compare
from pdbench.errors import Interrupted, PdbenchError, UsageError
from pdbench.stopping import StopFlag
from pdbench.web.fields import Asked, explain
from pdbench.web.sampler import Sampler
from pdbench.web.screen import Ending, Screen

if TYPE_CHECKING:
    from pdbench.load.delta import Delta
    from pdbench.load.job import Job
    from pdbench.load.outcome import Edit, LoadOutcome, OnDelta, ShouldStop

MOST_FACTOR = 100.0
"""How far a rate may be edited from the plan's, both ways: a run must still come to an end."""


class Carrier(Protocol):
    """Carries load, and can change its rate. ``retime`` and ``lost`` are asked from the page's thread."""

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome: ...

    def retime(self, run_id: str, factor: float) -> Edit | None: ...

    def lost(self) -> list[str]: ...


class Runs:
    """``state``: ready, running, stopping or stopped, in Locust's words. ``screen``: of the last call, or None."""

    def __init__(self, carrier: Carrier, say: Callable[[str], None]) -> None:
        self._carrier = carrier
        self._say = say
        self._lock = threading.Lock()
        self._checking = False
        self._thread: threading.Thread | None = None
        self._stop = StopFlag(signals=False)
        self._closed = False
        self.screen: Screen | None = None
        self.form: dict[str, str] | None = None
        self._number = 0

    # ---- asked by the pages

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def checking(self) -> bool:
        """Whether a form is being checked: a run may follow."""
        return self._checking

    @property
    def state(self) -> str:
        if self.screen is None:
            return "ready"
        if self.screen.ending is not None:
            return "stopped"
        return "stopping" if self._stop.requested else "running"

    def look(self) -> Screen | None:
        """The screen, told who is lost by now."""
        if self.screen is not None and self.busy:
            self.screen.note_lost(self._carrier.lost())
        return self.screen

    # ---- told by the pages

    def start(self, form: Mapping[str, str], check: Callable[[], Asked]) -> Screen:
        """Check the form, then begin. Raises ``UsageError``, and whatever ``check`` raises; nothing is started then."""
        with self._lock:
            self._refuse_if_closed()
            if self.busy:
                remedy = "wait for its end, or stop it; reload the page to see it"
                raise UsageError("a run is in progress", remedy=remedy)
            if self._checking:
                raise UsageError("another form is being checked", remedy="try again in a moment")
            self._checking = True
        try:
            asked = check()
            with self._lock:
                self._refuse_if_closed()  # meanwhile
                self._number += 1
                self._stop = StopFlag(signals=False)
                self.screen = screen = Screen(self._number, asked)
                self.form = dict(form)
                self._thread = threading.Thread(target=self._play, args=(asked, screen, self._stop), daemon=True)
                self._thread.start()
                return screen
        finally:
            self._checking = False

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise UsageError("the page is being closed", remedy="start pdbench web again")

    def stop(self) -> bool:
        """Ask the run to end; it is stored, INVALID. False where none goes."""
        if not self.busy or self.screen is None:
            return False
        self._stop.requested = True
        self.screen.stopping = True
        return True

    def edit(self, rate: float) -> Edit:
        """From a moment ahead on, the run that is going comes at ``rate`` requests/s. Raises ``UsageError``."""
        screen = self.screen
        going = screen.going if screen is not None and self.busy else None
        if screen is None or going is None:
            remedy = "a closed loop has no rate, and between two runs there is nothing to change"
            raise UsageError("no run is going whose rate could be edited", where="Rate", remedy=remedy)
        now = going.rate
        factor = rate / now if math.isfinite(rate) and rate > 0 else 0.0
        least, most = now / going.factor / MOST_FACTOR, now / going.factor * MOST_FACTOR
        if not least <= rate <= most or not factor:
            remedy = f"give requests per second from {least:.3g} to {most:.3g}"
            raise UsageError(f"{rate:g} is out of range", where="Rate", remedy=remedy)
        done = self._carrier.retime(going.run_id, factor)
        if done is None and not screen.begun:
            raise UsageError("the run has not begun", where="Rate", remedy="edit it when requests are sent")
        if done is None:
            raise UsageError("nothing is left of the plan to change", where="Rate", remedy="wait for the next run")
        screen.faster(going.run_id, factor)
        return done

    def close(self) -> None:
        """Start nothing more, and stop what runs. Wait for ``busy`` and ``checking`` to be false."""
        with self._lock:
            self._closed = True
        self.stop()

    # ---- the verb's thread

    def _play(self, asked: Asked, screen: Screen, stop: StopFlag) -> None:
        crew = Watched(self._carrier, screen)
        try:
            outcome = compare(
                asked.arms,
                asked.workload,
                asked.settings,
                screen,
                base=asked.base,
                kind=asked.kind,
                crew=crew,
                stop=stop,
            )
            self._say(f"run {screen.number}: results in {outcome.run_dir}")
            screen.end(Ending(outcome.document, outcome.run_dir))
        except Interrupted:
            screen.end(Ending(error="stopped before anything was measured"))
        except PdbenchError as error:
            self._say(f"run {screen.number}: {error}")
            screen.end(Ending(error=explain(error)))
        except Exception as error:  # the page must go on, and say what happened
            self._say(f"run {screen.number}: {''.join(traceback.format_exception(error))}")
            screen.end(Ending(error=f"{type(error).__name__}: {error}"))


class Watched:
    """A crew whose runs are shown: each delta, each word of a server of ours, and how it ended."""

    def __init__(self, carrier: Carrier, screen: Screen) -> None:
        self._carrier = carrier
        self._screen = screen

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """See ``pdbench.load.steer.run_load``."""
        screen = self._screen
        screen.begin(job)
        sampler = Sampler(job.base_url, screen.sample) if screen.tells_now else None

        def both(delta: Delta) -> None:
            screen.take(delta)
            if on_delta is not None:
                on_delta(delta)

        outcome = None
        try:
            outcome = self._carrier.run(job, both, should_stop)
            return outcome
        finally:
            if sampler is not None:
                sampler.stop()
            screen.over(outcome)
