"""A toy server to try the statistics on: queue, prefill, transfer, decode, and a machine that is not quiet.

Prefill is one server that takes requests in order of arrival, so waiting follows Lindley's recursion
(Proc. Camb. Phil. Soc. 48, 1952), here for thousands of runs at once. It is what makes latencies inside a run
correlated, which is what breaks naive intervals. Decode is a batch whose steps grow with the number of
sequences in it; the first token comes with the end of prefill, the second after transfer and a step.

What makes two runs of one plan differ: every request's work (independent), the machine's speed while it runs
(autocorrelated over requests), its speed from one run to the next (independent), and a drift over the whole
comparison, which the order AB BA halves. ``QUIET``, ``EDGE`` and ``NOISY`` set these so that the pair SD of
P90 TTFT at utilisation 0.7 is 0.06, just under 0.09, and 0.15; nothing else was fitted.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.signal import lfilter

from pdbench.order import order_of
from pdbench.stats.paired import Floats

PREFILL_S = 0.100
"""Mean prefill of a prompt."""
_PROMPT_SIGMA = 0.8
_MEAN_TOKENS = 512
_PREFILL_FIXED = 0.2
_TRANSFER_FIXED_S, _TRANSFER_PER_TOKEN_S = 0.005, 20e-6
STEP_S = 0.020
_STEP_PER_SEQUENCE = 0.01
STALL_S = 0.050
OUTPUT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Slowdown:
    """What is wrong with an arm: factors on phases, and the share of decode steps that stall for 50 ms."""

    prefill: float = 1.0
    decode: float = 1.0
    transfer: float = 1.0
    stall: float = 0.0


@dataclass(frozen=True, slots=True)
class Noise:
    """Relative standard deviations: of one request's work, of the speed's wandering inside a run (first-order
    autoregression, ``memory`` a request), between runs, and of the step of the drift between runs."""

    request: float = 0.05
    wander: float = 0.01
    memory: float = 0.98
    run: float = 0.008
    drift: float = 0.002


QUIET = Noise()
EDGE = Noise(run=0.016)
NOISY = Noise(wander=0.02, run=0.03, drift=0.006)
NO_SLOWDOWN = Slowdown()


@dataclass(frozen=True, slots=True, eq=False)
class Plans:
    """Arrivals (s) and prompt tokens, each [..., n]; the first ``warmup`` requests of each run are warm-up."""

    arrival_s: Floats
    tokens: Floats
    warmup: int

    def digest(self, *at: int) -> str:
        """The hash of one plan."""
        return hashlib.sha256(self.arrival_s[at].tobytes() + self.tokens[at].tobytes()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Luck:
    """What is random in an arm's runs, each [..., n]: the machine's speed, factors on the work of prefill and
    of decode steps, and a uniform number that says how many steps stall. The last two only for decode."""

    speed: Floats
    work: Floats
    step: Floats | None = None
    stall: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """What happened, each [..., n], in seconds: time to first token from the due time, gap between first and
    second token, decode step, and the number of stalls among the later gaps."""

    ttft_s: Floats
    handoff_s: Floats
    step_s: Floats
    stalls: Floats

    @property
    def tpot_s(self) -> Floats:
        later = (OUTPUT_TOKENS - 2) * self.step_s + STALL_S * self.stalls
        return np.asarray((self.handoff_s + later) / (OUTPUT_TOKENS - 1))

    @property
    def worst_gap_s(self) -> Floats:
        return np.maximum(self.handoff_s, self.step_s + STALL_S * (self.stalls > 0))

    @property
    def e2e_s(self) -> Floats:
        return np.asarray(self.ttft_s + self.tpot_s * (OUTPUT_TOKENS - 1))


def make_plans(shape: tuple[int, ...], n: int, warmup: int, utilisation: float, rng: np.random.Generator) -> Plans:
    """Poisson arrivals at ``utilisation`` of the prefill server, lognormal prompt lengths (mean 512)."""
    size = (*shape, warmup + n)
    gaps = rng.standard_exponential(size) * (PREFILL_S / utilisation)
    tokens = _MEAN_TOKENS * np.exp(_PROMPT_SIGMA * rng.standard_normal(size) - _PROMPT_SIGMA**2 / 2)
    return Plans(np.cumsum(gaps, axis=-1), tokens, warmup)


def pace(comparisons: int, pairs: int, noise: Noise, rng: np.random.Generator) -> Floats:
    """[2, comparisons, pairs]: how slow the machine is during each run of base and head, around 1, in the
    order in which the harness runs them."""
    steps = rng.standard_normal((comparisons, 2 * pairs)) * noise.drift
    drift = np.cumsum(steps, axis=1)
    place = np.array([[2 * pair + order_of(2, pair).index(arm) for pair in range(pairs)] for arm in (0, 1)])
    own = rng.standard_normal((2, comparisons, pairs)) * noise.run
    return np.asarray(np.exp(np.moveaxis(drift[:, place], 1, 0) + own))


def draw_luck(
    plans: Plans, paces: npt.ArrayLike, noise: Noise, rng: np.random.Generator, *, decode: bool = False
) -> Luck:
    """The luck of one arm on a machine that is ``paces`` [...] slow during each run."""
    size = plans.tokens.shape
    speed = np.asarray(paces, dtype=np.float64)[..., None] * _wander(size, noise, rng)
    work = np.exp(noise.request * rng.standard_normal(size))
    if not decode:
        return Luck(speed, work)
    return Luck(speed, work, np.exp(noise.request * rng.standard_normal(size)), rng.random(size))


def simulate(plans: Plans, luck: Luck, slow: Slowdown = NO_SLOWDOWN) -> Runs:
    """Replay plans [..., n] on an arm. The same luck under another slowdown differs by the slowdown alone.
    Only TTFT is worked out where no luck was drawn for decode."""
    work = PREFILL_S * (_PREFILL_FIXED + (1 - _PREFILL_FIXED) * plans.tokens / _MEAN_TOKENS)
    service = work * luck.speed * luck.work * slow.prefill
    ttft = lindley(plans.arrival_s, service) + service
    if luck.step is None or luck.stall is None:
        nothing = np.zeros(0)
        return Runs(ttft, nothing, nothing, nothing)
    transfer = (_TRANSFER_FIXED_S + _TRANSFER_PER_TOKEN_S * plans.tokens) * slow.transfer * luck.speed
    together = _in_batch(plans.arrival_s + ttft + transfer, OUTPUT_TOKENS * STEP_S)
    step = STEP_S * (1 + _STEP_PER_SEQUENCE * together) * slow.decode * luck.speed * luck.step
    stalls = stats.binom.ppf(luck.stall, OUTPUT_TOKENS - 2, slow.stall) if slow.stall else np.zeros_like(step)
    return Runs(ttft, transfer + step, step, stalls)


def lindley(arrival_s: Floats, service_s: Floats) -> Floats:
    """Waiting times [..., n] of a first-come-first-served server that starts idle: ``W[i+1] = max(0, W[i] +
    S[i] - gap)``, in the closed form "partial sum less its running minimum"."""
    steps = np.zeros_like(service_s)
    steps[..., 1:] = service_s[..., :-1] - np.diff(arrival_s, axis=-1)
    sums = np.cumsum(steps, axis=-1)
    return np.asarray(sums - np.minimum.accumulate(sums, axis=-1))


def p90(values: Floats, warmup: int) -> Floats:
    """Nearest-rank P90 over the last axis without warm-up, as ``measure.latency.percentile`` has it."""
    kept = values[..., warmup:]
    rank = math.ceil(round(0.9 * kept.shape[-1], 9)) - 1
    return np.asarray(np.partition(kept, rank, axis=-1)[..., rank])


def _wander(size: tuple[int, ...], noise: Noise, rng: np.random.Generator) -> Floats:
    fresh = rng.standard_normal(size) * (noise.wander * math.sqrt(1 - noise.memory**2))
    # Start in the stationary law, not at 0.
    fresh[..., 0] /= math.sqrt(1 - noise.memory**2)
    return np.asarray(np.exp(lfilter([1.0], [1.0, -noise.memory], fresh, axis=-1)))


def _in_batch(start_s: Floats, duration_s: float) -> Floats:
    """How many earlier requests still decode when each one starts. One search over all runs at once: each run
    is moved to a stretch of time of its own."""
    flat = np.sort(start_s.reshape(-1, start_s.shape[-1]), axis=-1)
    runs, n = flat.shape
    stretch = float(flat.max()) + 2 * duration_s
    moved = (flat + stretch * np.arange(runs)[:, None]).ravel()
    mine = (start_s.reshape(runs, n) + stretch * np.arange(runs)[:, None]).ravel()
    count = np.searchsorted(moved, mine, side="left") - np.searchsorted(moved, mine - duration_s, side="left")
    return np.asarray(count.reshape(start_s.shape), dtype=np.float64)
