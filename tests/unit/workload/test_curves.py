from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdbench.errors import UsageError
from pdbench.settings import Overrides, load_workload
from pdbench.workload.arrival_spec import Arrivals
from pdbench.workload.arrivals import offsets_us, streams_of
from pdbench.workload.curves import Curve, curve_of
from pdbench.workload.overrides import with_overrides
from pdbench.workload.plan import make_plan
from pdbench.workload.shapes import Shape, Tick
from pdbench.workload.spec import Workload
from pdbench.workload.spellings import EXAMPLES, read_arrivals
from tests.unit.workload.helpers import CHAT, workload

RAMP = {"process": "ramp", "from": 1, "to": 8, "over": "60s"}
SPIKE = {"process": "spike", "rate": 2, "peak": 10, "at": "20s", "lasting": "5s"}
DAY = {"process": "diurnal", "rate": 3, "swing": 0.6, "period": "120s"}
STEP = {"process": "step", "from": 2, "to": 8, "at": "30s"}
ENDS = {"process": "curve", "points": [[0, 4], [10, 4], [10, 0]]}


def arrivals(fields: dict[str, Any]) -> Arrivals:
    return msgspec.convert(fields, Arrivals)


@pytest.mark.parametrize(
    ("fields", "t_s", "expected"),
    [
        (RAMP, 60, 270.0),
        (RAMP, 30, 82.5),
        (RAMP, 70, 350.0),
        (STEP, 40, 140.0),
        (SPIKE, 20, 40.0),
        (SPIKE, 25, 90.0),
        (SPIKE, 35, 110.0),
        (DAY, 120, 360.0),
        (DAY, 60, 180 + 3 * 0.6 * 120 / math.pi),
        (DAY, 420, 3 * 360 + 180 + 3 * 0.6 * 120 / math.pi),
        ({"process": "curve", "points": [[0, 1], [10, 3]], "interpolate": "step"}, 12, 16.0),
        ({"process": "curve", "points": [[0, 1], [10, 3]]}, 12, 26.0),
        ({"process": "curve", "points": [[0, 5]]}, 2, 10.0),
        (ENDS, 99, 40.0),
    ],
)
def test_expected_counts_are_the_integral_of_the_rate(fields: dict[str, Any], t_s: float, expected: float) -> None:
    assert curve_of(arrivals(fields)).expected(t_s) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.one_of(st.just(0.0), st.floats(0.01, 500)), min_size=2, max_size=8),
    spans=st.lists(st.floats(0.01, 100), min_size=7, max_size=7),
    share=st.floats(0.001, 0.999),
)
def test_the_inverse_is_exact(rates: list[float], spans: list[float], share: float) -> None:
    curve = Curve(np.cumsum([0.0, *spans])[: len(rates)], rates)
    total = curve.expected(sum(spans[: len(rates) - 1]))
    if total <= 0:
        return
    mass = np.array([share * total])
    assert curve.expected(float(curve.instants_s(mass)[0])) == pytest.approx(mass[0], rel=1e-9, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    which=st.sampled_from([RAMP, SPIKE, DAY, STEP, ENDS]),
    law=st.sampled_from(["poisson", "constant", "gamma"]),
)
def test_invariants(seed: int, which: dict[str, Any], law: str) -> None:
    w = workload(arrivals={**which, "gaps": law}, num_requests=120)
    plan = make_plan(w, seed=seed)
    due = plan.scheduled_ns[~plan.warmup]
    assert plan.hash == make_plan(w, seed=seed).hash
    assert (np.diff(due) >= 0).all()
    assert (due % 1000 == 0).all()
    assert len(due) == 120 if which is not ENDS else len(due) <= 120


def test_constant_gaps_arrive_where_the_integral_is_whole() -> None:
    found = offsets_us(arrivals({**RAMP, "gaps": "constant"}), 270, np.zeros(270))
    curve = curve_of(arrivals(RAMP))
    np.testing.assert_allclose([curve.expected(t / 1e6) for t in found], np.arange(1, 271), atol=1e-5)
    assert found[-1] == 60e6


def test_a_curve_that_ends_ends_the_plan() -> None:
    """40 requests are expected; the plan is drawn long enough, and what is beyond the end is left out."""
    w = workload(arrivals=ENDS, num_requests=0)
    counts = [int((~make_plan(w, seed=seed).warmup).sum()) for seed in range(60)]
    assert w.num_requests > 60
    assert np.mean(counts) == pytest.approx(40, abs=2.5)
    assert np.std(counts) == pytest.approx(40**0.5, rel=0.35)


def test_time_rescaling_makes_a_poisson_process() -> None:
    """Undone, the arrivals of a day are unit-rate Poisson; of gamma gaps, the burstiness comes back."""
    for law, shape in (("poisson", 1.0), ("gamma", 0.4)):
        own = {"burstiness": shape} if law == "gamma" else {}
        plan = make_plan(workload(arrivals={**DAY, "gaps": law, **own}, num_requests=20_000, warmup=0), seed=5)
        curve = curve_of(arrivals(DAY))
        gaps = np.diff([curve.expected(t / 1e9) for t in plan.scheduled_ns])
        assert stats.kstest(gaps, stats.gamma(shape, scale=1 / shape).cdf).pvalue > 0.01
        assert 1 / (gaps.std() / gaps.mean()) ** 2 == pytest.approx(shape, rel=0.05)


@pytest.mark.parametrize(("law", "shape"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 3.0)])
def test_gaps_follow_their_law(law: str, shape: float) -> None:
    """KS test of the plan's gaps at fixed seeds (Bonferroni at 5 % over three), and burstiness = 1 / CV^2."""
    own = {"burstiness": shape} if law == "gamma" else {}
    for seed in (1, 2, 3):
        plan = make_plan(
            workload(arrivals={"process": law, "rate": 4, **own}, num_requests=20_000, warmup=0), seed=seed
        )
        gaps = np.diff(plan.scheduled_ns) / 1e9
        assert stats.kstest(gaps, stats.gamma(shape, scale=1 / (4 * shape)).cdf).pvalue > 0.05 / 9
        assert (gaps.mean() / gaps.std()) ** 2 == pytest.approx(shape, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "n"),
    [
        ({"arrivals": RAMP, "duration": "60s"}, 270),
        ({"arrivals": DAY, "duration": "4m"}, 720),
        ({"arrivals": {"process": "poisson", "rate": 2}, "duration": "30s"}, 60),
        ({"arrivals": {"process": "closed", "concurrency": 4}, "duration": "10s"}, 4000),
        ({"arrivals": {"process": "closed", "concurrency": 4}, "duration": "10s", "num_requests": 50}, 50),
    ],
)
def test_duration(changes: dict[str, Any], n: int) -> None:
    w = msgspec.convert({**CHAT, "num_requests": 0, **changes}, Workload)
    assert w.num_requests == n
    assert msgspec.json.decode(msgspec.json.encode(w), type=Workload) == w


def test_closed_loop() -> None:
    plan = make_plan(workload(arrivals={"process": "closed", "concurrency": 16}), seed=1)
    assert plan.concurrency == ((0, 16),)
    assert not plan.scheduled_ns.any()
    points = arrivals({"process": "closed", "points": [[0, 2], [5, 8], [20, 1]]})
    assert streams_of(points, 10.0) == ((0, 2), (5_000_000_000, 8), (10_000_000_000, 0))
    assert streams_of(points, None)[-1] == (20_000_000_000, 1)
    assert plan.hash != make_plan(workload(arrivals={"process": "closed", "concurrency": 17}), seed=1).hash


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**RAMP, "over": "60"}, "over: '60' has no unit"),
        ({**RAMP, "over": "0s"}, "over must be greater than 0"),
        ({**RAMP, "from": -1}, "from must not be negative"),
        ({**RAMP, "from": 0, "to": 0}, "nothing would arrive"),
        ({**RAMP, "rate": 2}, "rate does not apply to 'ramp'"),
        ({"process": "ramp", "to": 8, "over": "60s"}, "from is required for 'ramp'"),
        ({**SPIKE, "peak": 0}, "peak must be greater than 0"),
        ({**DAY, "swing": 1.5}, "swing must be at most 1"),
        ({**DAY, "burstiness": 0.5}, "burstiness needs gaps: gamma"),
        ({"process": "curve", "points": []}, "points must begin at 0 s"),
        ({"process": "curve", "points": [[1, 2]]}, "points must begin at 0 s"),
        ({"process": "curve", "points": [[0, 2], [5, 1], [4, 1]]}, "must not go backwards"),
        ({"process": "curve", "points": [[0, -2]]}, "must not be negative"),
        ({"process": "curve", "points": [[0, 0], [5, 0]]}, "nothing would arrive"),
        ({"process": "closed"}, "concurrency is required for 'closed'"),
        ({"process": "closed", "concurrency": 2, "points": [[0, 1]]}, "never both"),
        ({"process": "closed", "concurrency": 0}, "concurrency must be greater than 0"),
        ({"process": "closed", "points": [[0, 1.5]]}, "whole numbers of streams"),
        ({"process": "closed", "points": [[0, 0]]}, "at least one stream"),
        ({"process": "closed", "concurrency": 2, "rate": 1}, "rate does not apply"),
        ({"process": "poisson", "rate": 1, "jitter": "1s"}, "jitter does not apply"),
        ({"process": "trace", "file": "x", "jitter": "1"}, "has no unit"),
        ({"process": "trace", "file": "x", "jitter": True}, "jitter must be auto, off or a duration"),
    ],
)
def test_bad(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        arrivals(fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", EXAMPLES)
def test_spellings(text: str) -> None:
    assert read_arrivals(text).process == text.partition(":")[0]


def test_a_spelling_is_the_file_s() -> None:
    assert read_arrivals("spike:2:10:20s:5s") == arrivals(SPIKE)
    assert read_arrivals("closed", 16).concurrency == 16
    assert with_overrides(workload(), arrivals="diurnal:3:0.6:120s", rate=6).arrivals.rate == 6
    assert with_overrides(workload(), arrivals="ramp:1:8:60s", duration_s=60).num_requests == 270
    closed = with_overrides(workload(), arrivals="closed", concurrency=4, duration_s=10)
    assert (closed.num_requests, closed.duration) == (4000, "10s")
    bursty = with_overrides(workload(), arrivals="ramp:1:8:60s", burstiness=0.5).arrivals
    assert (bursty.gaps, bursty.burstiness) == ("gamma", 0.5)


@pytest.mark.parametrize(
    ("text", "whole_s"),
    [
        ("ramp:1:8:60s", 60),
        ("step:2:8:30s", 60),
        ("spike:2:10:20s:5s", 50),
        ("diurnal:3:0.6:120s", 120),
        ("curve:0s=1:30s=4", 30),
    ],
)
def test_a_curve_on_the_command_line_runs_whole(text: str, whole_s: float) -> None:
    w = with_overrides(workload(), arrivals=text, file_duration_s=7)
    assert w.num_requests == round(curve_of(w.arrivals).expected(whole_s))
    assert with_overrides(workload(), arrivals=text, num_requests=9).num_requests == 9
    assert with_overrides(workload(), arrivals=text, duration_s=1).num_requests < 4


def test_a_curve_that_ends_runs_to_its_end() -> None:
    w = with_overrides(workload(), arrivals="curve:0s=30:10s=30:10s=0")
    assert all(240 < (~make_plan(w, seed=seed).warmup).sum() < w.num_requests for seed in range(5))
    with pytest.raises(UsageError, match="add --duration TIME"):
        with_overrides(workload(), arrivals="curve:0s=4")


@pytest.mark.parametrize(
    "changes",
    [
        {"arrivals": {**ENDS, "gaps": "gamma", "burstiness": 0.05}},
        {"arrivals": {**ENDS, "points": [[0, 12], [10, 12], [10, 0]]}, "sessions": {"turns": 20, "think": "1s"}},
    ],
)
def test_what_spreads_wider_is_not_cut(changes: dict[str, Any]) -> None:
    """Far from their mean of 40 or 120, beyond five standard deviations of a Poisson count."""
    w = workload(num_requests=0, **changes)
    mean = curve_of(w.arrivals).total
    counts = [int((~make_plan(w, seed=seed).warmup).sum()) for seed in range(60)]
    assert mean + 5 * mean**0.5 + 10 < max(counts) < w.num_requests


@pytest.mark.parametrize(
    ("name", "asked", "n"),
    [
        ("spike", Overrides(rate=3), 3 * 55 + 50),
        ("spike", Overrides(rate=3, num_requests=20), 20),
        ("spike", Overrides(rate=3, duration_s=10), 30),
        ("spike", Overrides(arrivals="poisson", rate=2), 120),
        ("spike", Overrides(arrivals="closed", concurrency=2), 12_000),
        ("spike", Overrides(arrivals="ramp:1:3:90s"), 180),
        ("spike", Overrides(warmup=1), 105),
        ("chat", Overrides(rate=3), 60),
    ],
)
def test_the_file_s_duration_holds_for_other_arrivals(name: str, asked: Overrides, n: int) -> None:
    assert load_workload(name, asked).num_requests == n


def test_a_search_may_not_vary_a_day() -> None:
    """The same number of requests at another rate is another part of it."""
    assert not arrivals(DAY).can_rescale


def test_shapes_end_and_say_what_to_do() -> None:
    ticks = (Tick(0, 3, 3), Tick(20, 1, 3))
    shape = Shape("f.py:S", "concurrency", ticks, 30.0)
    assert make_plan(load_workload("chat", Overrides(shape=shape, num_requests=500)), seed=1).concurrency[-1] == (
        30_000_000_000,
        0,
    )
    assert load_workload("closed", Overrides(shape=Shape("f.py:S", "rate", ticks, 30.0))).num_requests > 60
    with pytest.raises(UsageError, match="give one"):
        load_workload("chat", Overrides(shape=shape, num_requests=5, duration_s=30))
    idle = Shape("f.py:S", "concurrency", (Tick(0, 0, 1), Tick(5, 4, 1)), 30.0)
    with pytest.raises(UsageError, match="--shape-means rate"):
        load_workload("chat", Overrides(shape=idle))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ramp:1:8", "write ramp:FROM:TO:OVER, e.g. ramp:1:8:60s"),
        ("ramp:1:8:60", "'60' has no unit"),
        ("ramp:one:8:60s", "from must be a number, got 'one'"),
        ("spkie:1", "did you mean 'spike'?"),
        ("poisson:2", "give the rate by --rate"),
        ("curve:0s", "'0s' is not a point of a curve"),
        ("curve:5s=1", "points must begin at 0 s"),
        ("closed", "add --concurrency N"),
        ("closed:2.5", "whole number"),
        ("closed:nan", "whole number"),
        ("closed:inf", "whole number"),
        ("closed:1e30", "concurrency"),
        ("closed:2:3", "write closed:16"),
        ("diurnal:3:2:9s", "swing must be at most 1"),
    ],
)
def test_bad_spellings(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_overrides(workload(), arrivals=text)
    assert caught.value.where == "--arrivals"
    assert message in str(caught.value)


def test_what_has_no_rate_says_so() -> None:
    with pytest.raises(UsageError, match="rate does not apply to 'ramp'"):
        with_overrides(workload(arrivals=RAMP), rate=3)
    with pytest.raises(UsageError, match="concurrency does not apply to 'poisson'"):
        with_overrides(workload(), concurrency=3)
    with pytest.raises(msgspec.ValidationError, match="both set the number"):
        workload(arrivals=RAMP, duration="60s")
    with pytest.raises(msgspec.ValidationError, match="must be greater than 0, got 0"):
        workload(arrivals=RAMP, num_requests=0)
