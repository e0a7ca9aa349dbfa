"""From an ended flight to its record, its journal entry and the live numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from pdbench.load.body import BodyMaker
from pdbench.load.delta import Done
from pdbench.load.histogram import LiveHistogram
from pdbench.load.http import Exchange
from pdbench.load.job import Job
from pdbench.load.journal import Journal
from pdbench.load.lag import LagLog
from pdbench.load.parse import REJECTED, body_excerpt
from pdbench.load.sender import Flight
from pdbench.measure.records import RequestRecord, Status


def outcome(flight: Flight, wanted: int | None) -> tuple[Status, str]:
    """How a flight ended, in the words of METRICS: its own status, else what its answer says.

    A stream that said ``[DONE]`` is complete, even if the server then kept the body open until a time-out.
    """
    exchange = flight.exchange
    if exchange is None:
        return flight.status or "error", flight.error
    complete = exchange.status == 200 and exchange.reader.done and not exchange.fault
    if flight.status is not None and not complete:
        return flight.status, flight.error
    if exchange.status is None:
        return "error", exchange.fault or f"{exchange.lost or 'no answer'} before an answer came"
    if exchange.status in REJECTED:
        later = f" (Retry-After {exchange.retry_after})" if exchange.retry_after else ""
        return "rejected", f"HTTP {exchange.status}{later}: {body_excerpt(exchange.excerpt)}"
    if exchange.fault:
        return "error", exchange.fault
    if exchange.status != 200:
        return "error", f"HTTP {exchange.status}: {body_excerpt(exchange.excerpt)}"
    return exchange.reader.verdict(exchange.clean, exchange.lost, wanted)


def worst_gap_lag_ns(
    chunk_ns: Sequence[int], stamps_ns: Sequence[int], lags_ns: Sequence[int], away_ns: Callable[[int], int]
) -> int:
    """How late the client was to read what ended a request's longest gap, if one stamp stood for several chunks there;
    else 0. ``stamps_ns``, ``lags_ns``: of each read. That gap may be too long by as much: the first of those chunks may
    have come before the stamp, while the client was away. The read's own lag counts from the last of them, so where
    chunks follow each other quickly it says nothing; ``away_ns`` (of a read's instant) is what the alarms say.
    """
    gaps = [b - a for a, b in pairwise(chunk_ns)]
    if len(gaps) < 2 or not stamps_ns:
        return 0
    at = max(range(len(gaps)), key=gaps.__getitem__) + 1
    if at + 1 == len(chunk_ns) or chunk_ns[at + 1] != chunk_ns[at]:
        return 0
    lag_ns = lags_ns[stamps_ns.index(chunk_ns[at])]
    return max(lag_ns, away_ns(chunk_ns[at] + lag_ns))


def _ms(ns: float) -> float:
    return round(ns / 1e6, 3)


class Recorder:
    """``take`` an ended flight. Keeps counts of the run and the latencies since the last ``interval``. ``away_ns``:
    ``SelfProbe``'s."""

    def __init__(
        self, job: Job, bodies: BodyMaker, journal: Journal, away_ns: Callable[[int], int] = lambda _: 0
    ) -> None:
        self._away_ns = away_ns
        self._job = job
        self._bodies = bodies
        self._journal = journal
        self._ttft = LiveHistogram()
        self._tbt = LiveHistogram()
        self._done: list[Done] = []
        self.client_lag = LagLog()
        self.recorded = 0
        self.ok = 0
        self.tokens = 0
        self.reads = 0
        self.events = 0
        self.merged_events = 0
        self.max_events_per_read = 0

    def take(self, flight: Flight) -> None:
        record = self._record(flight)
        self._journal.append(record)
        self.recorded += 1
        self.ok += record.status == "ok"
        self.reads += record.reads
        self.events += len(record.chunk_ns)
        self.merged_events += record.merged_events
        self.max_events_per_read = max(self.max_events_per_read, record.max_events_per_read)
        self.client_lag.extend(record.user_lag_ns)
        self._live(record)

    def _record(self, flight: Flight) -> RequestRecord:
        job, at = self._job, flight.position
        exchange = flight.exchange or Exchange(at)
        exchange.settle()
        status, error = outcome(flight, job.output_tokens[at] if job.ignore_eos else None)
        reader = exchange.reader
        counted = reader.counted(job.output_tokens[at])
        end_ns = exchange.end_ns if flight.status is None else flight.end_ns
        return RequestRecord(
            index=job.index[at],
            scheduled_ns=flight.scheduled_ns,
            sent_ns=flight.sent_ns,
            end_ns=exchange.last_ns if status == "ok" else end_ns or flight.end_ns,
            status=status,
            http_status=exchange.status,
            error=error,
            warmup=job.warmup[at],
            planned_prompt_tokens=job.prompt_tokens[at],
            planned_output_tokens=job.output_tokens[at],
            prompt_tokens=reader.prompt_tokens,
            output_tokens=reader.completion_tokens if counted.source != "chunks" else None,
            chunk_ns=reader.chunk_ns,
            chunk_tokens=counted.tokens,
            token_source=counted.source,
            user_lag_ns=exchange.user_lag_ns.tolist(),
            reads=exchange.data_reads,
            max_events_per_read=reader.max_events_per_read,
            merged_events=reader.merged_events,
            worst_gap_lag_ns=self._worst_gap_lag_ns(exchange) if reader.merged_events else 0,
            write_ns=flight.write_ns,
            note=reader.note(job.output_tokens[at]),
            request_id=self._bodies.request_id(at),
        )

    def _worst_gap_lag_ns(self, exchange: Exchange) -> int:
        return worst_gap_lag_ns(exchange.reader.chunk_ns, exchange.stamps_ns, exchange.user_lag_ns, self._away_ns)

    def _live(self, record: RequestRecord) -> None:
        stamps = record.chunk_ns
        tokens = sum(record.chunk_tokens)
        self.tokens += tokens
        gaps = [b - a for a, b in pairwise(stamps)]
        if not record.warmup:
            self._tbt.add_ns(gaps)
        if record.status != "ok":
            self._done.append(Done(record.status, None, None, tokens, record.error, warmup=record.warmup))
            return
        ttft_ns = stamps[0] - record.scheduled_ns
        if not record.warmup:
            self._ttft.add_ns([ttft_ns])
        later = (record.output_tokens or tokens) - record.chunk_tokens[0]
        self._done.append(
            Done(
                record.status,
                ttft_ms=_ms(ttft_ns),
                e2e_ms=_ms(stamps[-1] - record.scheduled_ns),
                tokens=tokens,
                error=record.error,
                tpot_ms=_ms((stamps[-1] - stamps[0]) / later) if gaps and later > 0 else None,
                worst_gap_ms=_ms(max(gaps)) if gaps else None,
                warmup=record.warmup,
            )
        )

    def interval(self) -> tuple[str, str, list[Done]]:
        """TTFT and TBT histograms (encoded) and the finished requests since the last call."""
        found = self._ttft.encode(), self._tbt.encode(), self._done
        self._ttft, self._tbt, self._done = LiveHistogram(), LiveHistogram(), []
        return found
