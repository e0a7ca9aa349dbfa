"""The plan: what is sent and when, frozen before the first request leaves.

A comparison replays one plan to every arm, so a plan must be the same on every machine: draws come from
numpy's PCG64 under ``SeedSequence([seed, pair])``, one child stream a purpose (changing the law of the
prompt lengths leaves arrivals and outputs alone), and times are whole microseconds. ``hash`` says in 64
characters that two runs were offered the same work.

    plan = make_plan(workload, seed=1, pair=0, max_model_len=4096)
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, NS_PER_US
from pdbench.workload.arrivals import Floats, streams_of
from pdbench.workload.lengths import Counts, draw_lengths
from pdbench.workload.requests import Draws, Ints, Requests, measured_requests, prefixes
from pdbench.workload.segments import Pieces
from pdbench.workload.spec import Lengths, Workload

# Warm-up keeps the pace of the measured part, held between these: quick enough not to bore, slow enough
# that the first, cold steps of a worker do not pile up a queue.
_WARMUP_GAP_S = (0.1, 0.5)
# Between the last warm-up request and the measured window, so that its queue has drained. A workload that
# names its instants is a picture drawn by hand: it starts from an empty server.
_SETTLE_S, _SETTLE_AT_S = 1.0, 6.0
_LONGEST_S = 366 * 86_400.0
_AGAIN = "Warm-up {}. "
"""Before a real text that is sent a second time, so that no prefix cache knows it when it counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """``n`` requests, warm-up first. ``scheduled_ns``: int64[n] offsets from the run's start, never going
    back; ``prompt_tokens``, ``output_tokens``: int32[n]; ``warmup``: bool[n]; ``dropped``: trace rows or
    real prompts longer than the model's maximum, left out.

    Where a workload has them: ``segments``, for each request the pieces (id, tokens) that its prompt's start shares;
    ``texts``, for each request its prompt; ``concurrency``, (from this ns, so many streams) of a closed loop, whose
    ``scheduled_ns`` are all 0: a request is due when a stream is free.
    """

    scheduled_ns: Ints
    prompt_tokens: Counts
    output_tokens: Counts
    warmup: npt.NDArray[np.bool_]
    seed: int
    pair: int
    dropped: int = 0
    segments: tuple[Pieces, ...] = ()
    texts: tuple[str, ...] = ()
    concurrency: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.scheduled_ns)
        if not all(len(column) == n for column in (self.prompt_tokens, self.output_tokens, self.warmup)):
            raise ValueError("the columns of a plan must have one length")
        if not all(len(column) in (0, n) for column in (self.segments, self.texts)):
            raise ValueError("segments and texts must have an entry for each request, or none at all")
        if n and (self.scheduled_ns[0] < 0 or np.any(np.diff(self.scheduled_ns) < 0)):
            raise ValueError("scheduled_ns must not be negative or go backwards")

    def __len__(self) -> int:
        return len(self.scheduled_ns)

    @property
    def hash(self) -> str:
        """sha256 (hex) of the content in canonical little-endian bytes; seed and pair are not content."""
        digest = hashlib.sha256(b"pdbench plan 1\n")
        digest.update(len(self).to_bytes(8, "little"))
        digest.update(self.scheduled_ns.astype("<i8").tobytes())
        digest.update(self.prompt_tokens.astype("<i4").tobytes())
        digest.update(self.output_tokens.astype("<i4").tobytes())
        digest.update(self.warmup.astype("u1").tobytes())
        for name in ("segments", "texts", "concurrency"):
            if getattr(self, name):
                part = msgspec.json.encode(getattr(self, name))
                digest.update(f"{name} {len(part)}\n".encode() + part)
        return digest.hexdigest()

    @property
    def rate(self) -> float:
        """Measured requests/s as planned: (n - 1) gaps over their span; inf when all are due at once (as in a closed
        loop)."""
        times = self.scheduled_ns[~self.warmup]
        span_ns = int(times[-1] - times[0]) if len(times) else 0
        return (len(times) - 1) * NS_PER_S / span_ns if span_ns else math.inf


def make_plan(workload: Workload, *, seed: int, pair: int = 0, max_model_len: int | None = None) -> Plan:
    """The frozen plan of pair ``pair``. Same arguments, same plan, on every machine.

    Raises ``UsageError`` where a length law can exceed ``max_model_len``, where a file cannot be read, and
    where none of its rows fits.
    """
    if seed < 0 or pair < 0:
        raise UsageError(f"must not be negative, got {seed if seed < 0 else pair}", where="--seed")
    draws = Draws(seed, pair)
    part = measured_requests(workload, draws, max_model_len)
    if part.us[-1] > _LONGEST_S * 1e6:
        raise UsageError("the plan is longer than a year", where="--rate", remedy="raise the rate")
    warm = workload.warmup
    warm_prompts = _warm_lengths(workload.prompt_tokens, draws, Draws.WARM_PROMPTS, warm, part.prompt_tokens)
    warm_outputs = _warm_lengths(workload.output_tokens, draws, Draws.WARM_OUTPUTS, warm, part.output_tokens)
    return Plan(
        scheduled_ns=_due_ns(workload, part.us),
        prompt_tokens=np.concatenate([warm_prompts, part.prompt_tokens]),
        output_tokens=np.concatenate([warm_outputs, part.output_tokens]),
        warmup=np.arange(warm + len(part.us)) < warm,
        seed=seed,
        pair=pair,
        dropped=part.dropped,
        segments=_segments(workload, draws, part, warm_prompts),
        texts=_texts(part, warm),
        concurrency=streams_of(workload.arrivals, workload.duration_s),
    )


def _due_ns(workload: Workload, us: Floats) -> Ints:
    """Warm-up and measured due times; all 0 in a closed loop."""
    warm = workload.warmup
    if workload.closed:
        return np.zeros(warm + len(us), dtype=np.int64)
    settle_s = _SETTLE_AT_S if workload.arrivals.process == "at" else _SETTLE_S
    warm_us, start_us = _warmup_us(warm, us, settle_s)
    return np.concatenate([warm_us, us + start_us]).astype(np.int64) * NS_PER_US


def _segments(workload: Workload, draws: Draws, part: Requests, warm_prompts: Counts) -> tuple[Pieces, ...]:
    """Warm-up requests have the synthetic prefixes, as those before a steady state would; what a trace or a session
    shares stays unknown to the server until the measured part brings it."""
    if not any(part.segments):
        return ()
    own = prefixes(workload, draws, warm_prompts, warmup=True) or ((),) * len(warm_prompts)
    return own + part.segments


def _texts(part: Requests, warm: int) -> tuple[str, ...]:
    if not part.texts:
        return ()
    return tuple(_AGAIN.format(i) + part.texts[i % len(part.texts)] for i in range(warm)) + part.texts


def _warmup_us(warm: int, us: Floats, settle_s: float) -> tuple[Floats, float]:
    """Due times of the warm-up requests and the start of the measured window, in us."""
    if warm == 0:
        return np.zeros(0), 0.0
    low, high = _WARMUP_GAP_S
    gap_us = round(min(max(us[-1] / 1e6 / len(us), low), high) * 1e6)
    times = np.arange(warm, dtype=np.float64) * gap_us
    return times, float(times[-1] + settle_s * 1e6)


def _warm_lengths(law: Lengths | None, draws: Draws, purpose: int, warm: int, measured: Counts) -> Counts:
    """The same law on a stream of its own; a trace repeats its first rows."""
    if law is None:
        return np.resize(measured, warm)
    return draw_lengths(law, draws.uniforms(purpose, warm))
