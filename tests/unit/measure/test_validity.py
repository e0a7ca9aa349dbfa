from __future__ import annotations

from typing import Any

import pytest

from pdbench.measure.audit import Audit, Spread, worst
from pdbench.measure.records import RequestRecord
from pdbench.measure.slo import parse_objectives
from pdbench.measure.validity import (
    Reason,
    Validity,
    combine,
    judge,
    of_reasons,
    receive_error_ns,
)
from tests.unit.measure.helpers import MS, frames, request

SLO = ["ttft p90 <= 400ms", "tpot p90 <= 40ms"]


def judged(*records: RequestRecord, slo: list[str] = SLO, clock: Any = "kernel", **options: Any) -> Validity:
    requests, tokens = frames(*records)
    options.setdefault("scheduled", sum(not r.warmup for r in records))
    return judge(requests, parse_objectives(slo), clock, tokens=tokens, **options)


def fine(n: int = 100, lag: float = 0.1, **changes: Any) -> list[RequestRecord]:
    return [request(i, 100, [10, 10], lag=lag, **changes) for i in range(n)]


def only_reason(validity: Validity) -> str:
    assert validity.status == "INVALID"
    assert len(validity.reasons) == 1
    assert validity.reasons[0].remedy
    return validity.reasons[0].message


def test_valid() -> None:
    assert judged(*fine()) == Validity()
    assert judged(*fine()).document() == {"status": "VALID", "reasons": []}


def test_requests_failed_by_the_server_are_results() -> None:
    failed = [request(100 + i, None, status="error") for i in range(50)]
    assert judged(*fine(), *failed).valid
    assert judged(*[request(i, None, status="error") for i in range(5)], slo=[*SLO, "tbt p90 <= 40ms"]).valid


@pytest.mark.parametrize(
    ("lag_ms", "slo", "valid"),
    [
        (20.0, ["ttft p90 <= 400ms"], True),  # 5 % of 400 ms
        (20.1, ["ttft p90 <= 400ms"], False),
        (20.1, ["ttft p90 <= 400ms", "ttft p99 <= 5s"], False),  # the tightest limit counts
        (5.0, ["tpot p90 <= 40ms"], True),
        (5.1, ["tpot p90 <= 40ms"], False),
        (5.1, [], False),
    ],
)
def test_dispatch_lag(lag_ms: float, slo: list[str], valid: bool) -> None:
    found = judged(*fine(lag=lag_ms), slo=slo)
    assert found.valid == valid
    if not valid:
        assert "dispatch lag P99" in only_reason(found)
        assert "add a worker" in found.reasons[0].remedy


def test_late_warm_up_and_one_late_in_a_hundred_do_not_count() -> None:
    assert judged(*fine(99), request(99, 100, [10], lag=300)).valid
    assert judged(*fine(), *[request(200 + i, 1, [1], lag=900, warmup=True) for i in range(9)]).valid
    assert not judged(*fine(98), *[request(98 + i, 100, [10], lag=300) for i in range(2)]).valid


def test_waiting_for_a_slot_is_not_lag() -> None:
    assert judged(*fine(lag=300), max_concurrency=4).valid


@pytest.mark.parametrize(
    ("clock", "probe_ms", "slo", "valid"),
    [
        ("kernel", None, ["tpot p90 <= 40ms"], True),
        ("kernel", None, ["tbt p90 <= 400us"], True),
        ("kernel", None, ["tbt p90 <= 399us"], False),
        ("user", 2.0, ["tpot p90 <= 40ms"], True),
        ("user", 2.1, ["tpot p90 <= 40ms"], False),
        ("user", 2.1, ["ttft p90 <= 400ms"], True),
        ("user", 5.1, ["ttft p90 <= 400ms"], False),
        ("user", None, ["tpot p90 <= 40ms"], False),
        ("virtual", None, ["tbt p90 <= 1us"], True),
    ],
)
def test_receive_error(clock: str, probe_ms: float | None, slo: list[str], valid: bool) -> None:
    probe_ns = None if probe_ms is None else probe_ms * MS
    found = judged(*fine(), clock=clock, slo=slo, receive_lag_p99_ns=probe_ns)
    assert found.valid == valid
    if clock == "user" and not valid:
        assert "use --clock kernel" in found.reasons[0].remedy


def test_merged_reads_are_trusted_only_as_far_as_the_client_was_quick() -> None:
    merged = fine(merged_events=3, user_lag_ns=[3 * MS])
    requests, _ = frames(*merged)
    assert receive_error_ns(requests, "kernel") == 3 * MS
    assert not judged(*merged).valid
    assert judged(*fine(merged_events=3, user_lag_ns=[1 * MS])).valid
    assert judged(*fine(merged_events=0, user_lag_ns=[3 * MS])).valid
    quick = fine(merged_events=3, user_lag_ns=[0])
    assert judged(*quick, audit=audit(loop=1.9)).valid
    assert not judged(*quick, audit=audit(loop=2.1)).valid  # the stamp hides it, the alarms do not


def test_the_merged_share_of_the_worst_run_counts() -> None:
    """Pooled over ten runs 5 % of merged events are half a percent."""
    slow = Spread(0.1, 2.1, 9.0)
    assert judged(*fine(), audit=audit(merged_share=0.009, kernel_lag_ms=slow)).valid
    found = judged(*fine(), audit=audit(merged_share=0.05, kernel_lag_ms=slow))
    assert "receive error P99 2.10 ms" in only_reason(found)
    assert judged(*fine(), audit=audit(merged_share=0.05, kernel_lag_ms=Spread(0.1, 1.3, 9.0))).valid


@pytest.mark.parametrize(
    ("late", "lag_ms", "slo", "valid"),
    [
        (5, 30.0, "worst_gap p90 <= 40ms", True),
        (6, 30.0, "worst_gap p90 <= 40ms", False),
        (6, 30.0, "tpot p90 <= 40ms", True),  # one gap in a request moves its mean little, and no percentile of gaps
        (100, 1.9, "worst_gap p90 <= 40ms", True),  # a server that writes several events at once, to a quick client
    ],
)
def test_worst_gaps_that_end_at_merged_reads(late: int, lag_ms: float, slo: str, valid: bool) -> None:
    """Less than 1 % of the events: no percentile of gaps shows them, the worst gap of each request does."""
    merged = [request(i, 100, [10] * 300, merged_events=2, worst_gap_lag_ns=round(lag_ms * MS)) for i in range(late)]
    good = [request(100 + i, 100, [10] * 300) for i in range(100 - late)]
    found = judged(*merged, *good, slo=[slo])
    assert found.valid == valid
    if not valid:
        assert "receive error P99 30.0 ms" in only_reason(found)


def audit(loop: float = 0.1, busy: float = 0.2, wait: float | None = 0.1, **changes: Any) -> Audit:
    return Audit(
        loop_lag_ms=Spread(loop, loop, loop), cpu_share=Spread(busy, busy, busy), cpu_wait_share=wait, **changes
    )


@pytest.mark.parametrize(
    ("found", "lag", "says", "remedy"),
    [
        (audit(), 0.1, "", ""),
        (audit(loop=19.9, wait=0.66), 0.1, "", ""),
        (audit(loop=20.1, wait=None), 0.1, "the client was late: event loop lag P99 20.1 ms", "add a worker"),
        (audit(loop=20.1, wait=0.9), 0.1, "wait for the processor 90 %", "free a core for the client: other"),
        (audit(loop=5.1, wait=0.7), 0.1, "event loop lag P99 5.10 ms; it had to wait", "free a core"),
        (audit(loop=0.9, wait=0.9), 0.1, "", ""),
        (
            audit(busy=0.95),
            20.1,
            "dispatch lag P99 20.1 ms exceeds 5 % of the TTFT limit, 20.0 ms; it used 95 %",
            "add a",
        ),
        (audit(busy=0.5, wait=0.5), 20.1, "50 % of the time it wanted to run", "free a core for the client: other"),
        (audit(clock_drift_us=2001.0), 0.1, "the clock moved by 2.00 ms during the run", "time of day"),
    ],
)
def test_the_audit_gives_reason_and_remedy(found: Audit, lag: float, says: str, remedy: str) -> None:
    validity = judged(*fine(lag=lag), audit=found)
    if not says:
        assert validity.valid
        return
    assert says in only_reason(validity)
    assert remedy in validity.reasons[0].remedy


def test_time_spent_in_the_write_is_lag() -> None:
    assert judged(*fine(lag=1, write_ns=19 * MS)).valid
    assert "dispatch lag P99 20.1 ms" in only_reason(judged(*fine(lag=1, write_ns=round(19.1 * MS))))


def test_under_a_limit_of_concurrency_the_event_loop_is_judged_all_the_same() -> None:
    assert judged(*fine(lag=300), max_concurrency=4, audit=audit()).valid
    assert "event loop lag" in only_reason(judged(*fine(lag=300), max_concurrency=4, audit=audit(loop=30)))


def test_on_the_user_clock_the_later_reads_of_a_wake_up_count() -> None:
    late = audit(wake_lag_ms=Spread(0.1, 1.5, 9.0))
    assert judged(*fine(), clock="user", receive_lag_p99_ns=0.4 * MS, audit=late).valid
    found = judged(*fine(), clock="user", receive_lag_p99_ns=0.6 * MS, audit=late)
    assert "receive error P99 2.10 ms" in only_reason(found)
    assert "use --clock kernel" in found.reasons[0].remedy


def test_of_several_runs_the_worst_counts() -> None:
    found = worst([audit(loop=1, peak_rss_bytes=5), audit(loop=3, wait=None), Audit()])
    assert found == audit(loop=3, peak_rss_bytes=5)
    assert worst([]) is None
    assert Audit().document() == {
        "max_events_per_read": 0,
        "merged_share": 0.0,
        "unstamped_share": 0.0,
        "clock_drift_us": 0.0,
        "peak_rss_bytes": 0,
    }


@pytest.mark.parametrize(
    ("clock", "share", "valid"), [("kernel", 0.01, True), ("kernel", 0.011, False), ("user", 0.5, True)]
)
def test_reads_without_the_kernels_stamp(clock: str, share: float, valid: bool) -> None:
    found = judged(*fine(), clock=clock, receive_lag_p99_ns=0.1 * MS, audit=audit(unstamped_share=share))
    assert found.valid == valid
    if not valid:
        assert "1.1 % of the reads came without the kernel's stamp" in only_reason(found)
        assert "--clock user" in found.reasons[0].remedy


def test_every_scheduled_request_is_accounted_for() -> None:
    assert "100 requests were scheduled but 99" in only_reason(judged(*fine(99), scheduled=100))


def test_warm_up_does_not_fill_in_for_measured_requests() -> None:
    assert not judged(*fine(99), request(99, 100, [10], warmup=True), scheduled=100).valid


def test_lost_workers_and_interruptions() -> None:
    assert "1 load worker lost" in only_reason(judged(*fine(), workers_lost=1))
    assert "interrupted" in only_reason(judged(*fine(), interrupted=True))


def test_nothing_scheduled() -> None:
    assert "no request was scheduled" in only_reason(judged(*[request(0, 1, [1], warmup=True)]))


def test_an_objective_without_its_metric_never_passes_silently() -> None:
    single = [request(i, 100) for i in range(10)]
    assert "'tpot p90 <= 40ms' has nothing to judge" in only_reason(judged(*single))
    assert "'tbt p90 <= 40ms'" in only_reason(judged(*single, slo=["tbt p90 <= 40ms"]))
    with_failures = [*single, request(99, None, status="error")]
    assert not judged(*with_failures).valid


def test_stamps_that_go_backwards() -> None:
    assert "go backwards" in only_reason(judged(*fine(), request(100, 50, [-1])))


def test_arms_are_named() -> None:
    bad = of_reasons([Reason("late", "hurry")])
    assert combine({"a": Validity(), "b": bad}).reasons == (Reason("b: late", "hurry"),)
    assert combine({"a": Validity()}).valid


@pytest.mark.parametrize(("status", "reasons"), [("VALID", (Reason("x", "y"),)), ("INVALID", ())])
def test_status_and_reasons_agree(status: Any, reasons: tuple[Reason, ...]) -> None:
    with pytest.raises(ValueError, match="INVALID needs a reason"):
        Validity(status, reasons)
