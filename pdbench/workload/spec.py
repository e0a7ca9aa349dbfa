"""What a workload file says: when requests arrive, how long they are, how many, and under which SLO.

The structs refuse what cannot be meant: unknown keys, negative or zero rates, counts and lengths, NaN and
infinity, keys of another law. They are read by ``msgspec.convert``, which puts the path of the key behind the
message of a ``ValueError`` raised here, so messages start with the name of the field.

    arrivals: {process: poisson, rate: 2.0}
    prompt_tokens: {distribution: fixed, value: 512}
"""

from __future__ import annotations

import msgspec

from pdbench.workload.arrival_spec import Arrivals
from pdbench.workload.checks import LENGTH_MAX, not_negative, positive
from pdbench.workload.length_spec import Lengths

__all__ = ["LENGTH_MAX", "Arrivals", "Lengths", "Sampling", "Workload"]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How servers are asked to sample. Greedy, and to the planned length, so that arms do the same work."""

    temperature: float = 0.0
    ignore_eos: bool = True

    def __post_init__(self) -> None:
        not_negative("temperature", self.temperature)


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One traffic pattern and the SLO it is judged by.

    ``num_requests`` counts measured requests; ``warmup`` requests are extra. For a trace it is a limit: the
    plan may hold fewer. Lengths given beside a trace replace the trace's own.
    """

    name: str
    description: str = ""
    arrivals: Arrivals
    prompt_tokens: Lengths | None = None
    output_tokens: Lengths | None = None
    num_requests: int
    warmup: int = 10
    slo: list[str] = []
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name must not be empty")
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
        if any(not text.strip() for text in self.slo):
            raise ValueError("slo must not hold an empty objective")

    def _check_lengths(self, name: str, lengths: Lengths | None) -> None:
        if lengths is None:
            if self.arrivals.process != "trace":
                raise ValueError(f"{name} is required unless arrivals.process is 'trace'")
        elif lengths.values is not None and len(lengths.values) < self.num_requests:
            have = len(lengths.values)
            raise ValueError(f"num_requests is {self.num_requests} but {name}.values has {have}")
