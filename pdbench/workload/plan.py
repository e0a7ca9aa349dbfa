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

import numpy as np
import numpy.typing as npt

from pdbench.errors import UsageError
from pdbench.units import NS_PER_S, NS_PER_US
from pdbench.workload.arrivals import Floats, offsets_us
from pdbench.workload.lengths import draw_lengths
from pdbench.workload.spec import Lengths, Workload
from pdbench.workload.traces import TraceRow, read_slice

# Warm-up keeps the pace of the measured part, held between these: quick enough not to bore, slow enough
# that the first, cold steps of a worker do not pile up a queue.
_WARMUP_GAP_S = (0.1, 0.5)
# Between the last warm-up request and the measured window, so that its queue has drained. A workload that
# names its instants is a picture drawn by hand: it starts from an empty server.
_SETTLE_S, _SETTLE_AT_S = 1.0, 6.0
_LONGEST_S = 366 * 86_400.0
_ARRIVALS, _PROMPTS, _OUTPUTS, _WARM_PROMPTS, _WARM_OUTPUTS = range(5)

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """``n`` requests, warm-up first. ``scheduled_ns``: int64[n] offsets from the run's start, never going
    back; ``prompt_tokens``, ``output_tokens``: int32[n]; ``warmup``: bool[n]; ``dropped``: trace rows
    longer than the model's maximum, left out."""

    scheduled_ns: Ints
    prompt_tokens: Counts
    output_tokens: Counts
    warmup: npt.NDArray[np.bool_]
    seed: int
    pair: int
    dropped: int = 0

    def __post_init__(self) -> None:
        n = len(self.scheduled_ns)
        if not all(len(column) == n for column in (self.prompt_tokens, self.output_tokens, self.warmup)):
            raise ValueError("the columns of a plan must have one length")
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
        return digest.hexdigest()

    @property
    def rate(self) -> float:
        """Measured requests/s as planned: (n - 1) gaps over their span; inf when all are due at once."""
        times = self.scheduled_ns[~self.warmup]
        span_ns = int(times[-1] - times[0]) if len(times) else 0
        return (len(times) - 1) * NS_PER_S / span_ns if span_ns else math.inf


def make_plan(workload: Workload, *, seed: int, pair: int = 0, max_model_len: int | None = None) -> Plan:
    """The frozen plan of pair ``pair``. Same arguments, same plan, on every machine.

    Raises ``UsageError`` where a length law can exceed ``max_model_len``, where a trace cannot be read, and
    where none of its rows fits.
    """
    if seed < 0 or pair < 0:
        raise UsageError(f"must not be negative, got {seed if seed < 0 else pair}", where="--seed")
    streams = np.random.SeedSequence([seed, pair]).spawn(5)
    if workload.arrivals.process == "trace":
        us, prompts, outputs, dropped = _from_trace(workload, streams, max_model_len)
    else:
        dropped, n = 0, workload.num_requests
        us = offsets_us(workload.arrivals, n, _uniforms(streams[_ARRIVALS], n))
        prompts = _lengths(workload.prompt_tokens, streams[_PROMPTS], n)
        outputs = _lengths(workload.output_tokens, streams[_OUTPUTS], n)
        _check_fits(workload, max_model_len)
    if us[-1] > _LONGEST_S * 1e6:
        raise UsageError("the plan is longer than a year", where="--rate", remedy="raise the rate")
    warm = workload.warmup
    settle_s = _SETTLE_AT_S if workload.arrivals.process == "at" else _SETTLE_S
    warm_us, start_us = _warmup_us(warm, us, settle_s)
    warm_prompts = _warm_lengths(workload.prompt_tokens, streams[_WARM_PROMPTS], warm, prompts)
    warm_outputs = _warm_lengths(workload.output_tokens, streams[_WARM_OUTPUTS], warm, outputs)
    return Plan(
        scheduled_ns=np.concatenate([warm_us, us + start_us]).astype(np.int64) * NS_PER_US,
        prompt_tokens=np.concatenate([warm_prompts, prompts]),
        output_tokens=np.concatenate([warm_outputs, outputs]),
        warmup=np.arange(warm + len(us)) < warm,
        seed=seed,
        pair=pair,
        dropped=dropped,
    )


def _uniforms(stream: np.random.SeedSequence, n: int) -> Floats:
    return np.random.Generator(np.random.PCG64(stream)).random(n)


def _lengths(law: Lengths | None, stream: np.random.SeedSequence, n: int) -> Counts:
    if law is None:
        raise ValueError("a length law is missing")  # Workload refuses this earlier
    return draw_lengths(law, _uniforms(stream, n))


def _own_lengths(law: Lengths | None, stream: np.random.SeedSequence, n: int) -> Counts | None:
    return None if law is None else _lengths(law, stream, n)


def _check_fits(workload: Workload, max_model_len: int | None) -> None:
    if max_model_len is None or workload.prompt_tokens is None or workload.output_tokens is None:
        return
    longest = workload.prompt_tokens.longest + workload.output_tokens.longest
    if longest > max_model_len:
        raise UsageError(
            f"prompt + output can reach {longest} tokens, longer than the model's maximum {max_model_len}",
            where=f"workload '{workload.name}'",
            remedy="shorten prompt_tokens or output_tokens, or serve the model with a longer maximum",
        )


def _from_trace(
    workload: Workload, streams: list[np.random.SeedSequence], max_model_len: int | None
) -> tuple[Floats, Counts, Counts, int]:
    """Offsets (us), lengths and the number of rows dropped, from the slice of the workload's trace."""
    n = workload.num_requests
    own_prompts = _own_lengths(workload.prompt_tokens, streams[_PROMPTS], n)
    own_outputs = _own_lengths(workload.output_tokens, streams[_OUTPUTS], n)
    kept: list[TraceRow] = []
    dropped, first_ns = 0, None
    for row in read_slice(workload.arrivals):
        place = len(kept)
        first_ns = row.t_ns if first_ns is None else first_ns
        prompt = int(own_prompts[place]) if own_prompts is not None else row.prompt_tokens
        output = int(own_outputs[place]) if own_outputs is not None else row.output_tokens
        if max_model_len is not None and prompt + output > max_model_len:
            dropped += 1
            continue
        kept.append(TraceRow(row.t_ns - first_ns, prompt, output))
        if len(kept) == n:
            break
    if not kept:
        raise UsageError(
            f"none of the trace's {dropped} rows fits the model's maximum of {max_model_len} tokens",
            where=str(workload.arrivals.file),
            remedy="shorten them with --length-scale, or serve the model with a longer maximum",
        )
    t_ns, prompts, outputs = (np.array(column, dtype=np.int64) for column in zip(*kept, strict=True))
    us = np.rint(t_ns * _stretch(workload, t_ns) / NS_PER_US)
    return us, prompts.astype(np.int32), outputs.astype(np.int32), dropped


def _stretch(workload: Workload, t_ns: Ints) -> float:
    """The factor on the trace's gaps: ``time_scale``, or what turns its mean rate into ``rate``."""
    span_ns = int(t_ns[-1] - t_ns[0])
    if workload.arrivals.rate is None or span_ns == 0:
        return workload.arrivals.time_scale
    natural = (len(t_ns) - 1) * NS_PER_S / span_ns
    return natural / workload.arrivals.rate


def _warmup_us(warm: int, us: Floats, settle_s: float) -> tuple[Floats, float]:
    """Due times of the warm-up requests and the start of the measured window, in us."""
    if warm == 0:
        return np.zeros(0), 0.0
    low, high = _WARMUP_GAP_S
    gap_us = round(min(max(us[-1] / 1e6 / len(us), low), high) * 1e6)
    times = np.arange(warm, dtype=np.float64) * gap_us
    return times, float(times[-1] + settle_s * 1e6)


def _warm_lengths(law: Lengths | None, stream: np.random.SeedSequence, warm: int, measured: Counts) -> Counts:
    """The same law on a stream of its own; a trace repeats its first rows."""
    if law is None:
        return np.resize(measured, warm)
    return draw_lengths(law, _uniforms(stream, warm))
