"""What a workload file says: when requests arrive, how long they are, how many, and under which SLO.

The structs refuse what cannot be meant: unknown keys, negative or zero rates, counts and lengths, NaN and
infinity, keys of another law. They are read by ``msgspec.convert``, which puts the path of the key behind the
message of a ``ValueError`` raised here, so messages start with the name of the field.

    arrivals: {process: poisson, rate: 2.0}
    prompt_tokens: {distribution: fixed, value: 512}
"""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import force_setattr

from pdbench.workload.arrival_spec import CURVES, Arrivals
from pdbench.workload.checks import LENGTH_MAX, not_negative, positive, seconds
from pdbench.workload.length_spec import Lengths
from pdbench.workload.prompt_spec import Prefix, Prompts, Sessions

__all__ = ["LENGTH_MAX", "Arrivals", "Lengths", "Prefix", "Prompts", "Sampling", "Sessions", "Workload"]

_PER_STREAM = 100
"""Requests a second that one stream of a closed loop of given duration is planned for at most."""
_CLOSED_MAX, _CLOSED_TEXTS_MAX = 200_000, 20_000
"""And in all; fewer where every prompt is made beforehand and travels in the job."""


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How servers are asked to sample. Greedy, and to the planned length, so that arms do the same work."""

    temperature: float = 0.0
    ignore_eos: bool = True

    def __post_init__(self) -> None:
        not_negative("temperature", self.temperature)


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One traffic pattern and the SLO it is judged by.

    ``num_requests`` counts measured requests; ``warmup`` requests are extra. ``duration`` instead: as many as are
    expected in that time; in a closed loop it ends the run, and both may be given. For a trace, and a curve whose
    last rate is 0, ``num_requests`` is a limit: the plan may hold fewer. Lengths given beside a trace replace the
    trace's own.
    """

    name: str
    description: str = ""
    arrivals: Arrivals
    prompt_tokens: Lengths | None = None
    output_tokens: Lengths | None = None
    num_requests: int = 0
    duration: str | None = None
    warmup: int = 10
    prefix: Prefix | None = None
    sessions: Sessions | None = None
    prompts: Prompts | None = None
    slo: list[str] = []
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
        if self.num_requests == 0 or self.duration is not None:
            self._resolve_duration()
        positive("num_requests", self.num_requests)
        if self.num_requests > LENGTH_MAX:
            raise ValueError(f"num_requests must be at most {LENGTH_MAX}, got {self.num_requests}")
        not_negative("warmup", self.warmup)
        for name in ("prompt_tokens", "output_tokens"):
            self._check_lengths(name, getattr(self, name))
        if self.arrivals.times_ms is not None and len(self.arrivals.times_ms) < self.num_requests:
            raise ValueError(
                f"num_requests is {self.num_requests} but arrivals.times_ms has {len(self.arrivals.times_ms)}"
            )
        self._check_prompts()
        if any(not text.strip() for text in self.slo):
            raise ValueError("slo must not hold an empty objective")

    @property
    def closed(self) -> bool:
        return self.arrivals.process == "closed"

    @property
    def duration_s(self) -> float | None:
        """When a closed loop of given duration ends; ``None`` for whatever ends by its number of requests."""
        return seconds("duration", self.duration) if self.duration is not None else None

    def _resolve_duration(self) -> None:
        """``num_requests`` from ``duration``, or from a curve that ends by itself."""
        process, length_s = self.arrivals.process, self.duration_s
        if length_s is not None and process in ("trace", "at"):
            other = "arrivals.duration_s" if process == "trace" else "num_requests"
            raise ValueError(f"duration does not apply to '{process}': give {other}")
        if self.closed:
            if length_s is not None and self.num_requests == 0:
                limit = _CLOSED_MAX if self.prompts is None else _CLOSED_TEXTS_MAX
                force_setattr(self, "num_requests", min(limit, self._most_requests(length_s)))
            return
        if self.num_requests != 0 and length_s is not None:
            raise ValueError("duration and num_requests both set the number of requests: give one")
        force_setattr(self, "num_requests", expected_requests(self, length_s))
        force_setattr(self, "duration", None)

    def _most_requests(self, length_s: float) -> int:
        most = max(
            (streams for _, streams in self.arrivals.points or ()), default=float(self.arrivals.concurrency or 1)
        )
        return max(1, math.ceil(most * length_s * _PER_STREAM))

    def _check_lengths(self, name: str, lengths: Lengths | None) -> None:
        if lengths is None:
            if self.arrivals.process != "trace" and not (name == "prompt_tokens" and self._real_text):
                raise ValueError(f"{name} is required unless arrivals.process is 'trace'")
        elif lengths.distribution == "list" and len(lengths.values or ()) < self.num_requests:
            have = len(lengths.values or ())
            raise ValueError(f"num_requests is {self.num_requests} but {name}.values has {have}")

    @property
    def _real_text(self) -> bool:
        return self.prompts is not None and self.prompts.file is not None

    def _check_prompts(self) -> None:
        """What a prompt is made of comes from one place."""
        process = self.arrivals.process
        for name in ("prefix", "sessions"):
            if getattr(self, name) is not None and (process == "trace" or self._real_text):
                whose = "a trace" if process == "trace" else "prompts.file"
                raise ValueError(f"{name} is for synthetic prompts, and {whose} brings its own")
        if self.sessions is not None and process in ("closed", "at"):
            raise ValueError(f"sessions does not apply to '{process}': turns are due think after one another")
        if self.sessions is not None and self.prompt_tokens is not None and self.prompt_tokens.distribution == "list":
            raise ValueError("sessions draws its lengths, so prompt_tokens cannot be a list")
        if self._real_text and (self.prompt_tokens is not None or process == "trace"):
            raise ValueError("prompts.file brings the lengths of prompts: leave out prompt_tokens, and no trace")


def expected_requests(w: Workload, duration_s: float | None) -> int:
    """How many requests ``duration_s`` holds at the arrivals' rate, at least 1; enough for all of a curve that ends
    before, or without a duration. 0 where neither says it."""
    arrivals = w.arrivals
    if arrivals.process in CURVES:
        from pdbench.workload.curves import curve_of  # brings numpy, which few workloads need this early

        curve = curve_of(arrivals)
        if duration_s is not None and curve.expected(duration_s) < curve.total:
            return max(1, round(curve.expected(duration_s)))
        # Counts end within five standard deviations; those too many are beyond the curve's end. The variance of a
        # count is the mean (Poisson's) over the burstiness, and times the turns where one arrival stands for so many.
        wider = max(1.0, 1 / (arrivals.burstiness or 1.0)) * (w.sessions.turns if w.sessions is not None else 1)
        bound = curve.total + 5 * math.sqrt(curve.total * wider) + 10 * wider
        return math.ceil(bound) if math.isfinite(bound) else 0
    if duration_s is None or arrivals.rate is None:
        return 0
    return max(1, round(arrivals.rate * duration_s))
