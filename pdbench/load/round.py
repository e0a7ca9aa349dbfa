"""One run of a fleet, on the master: share out, wait for READY, one t0 for all, follow, collect, merge.

Runs in one greenlet of the master; the workers' messages come in between, by ``take``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import gevent
import msgspec
from gevent.event import Event

from pdbench.errors import UsageError
from pdbench.load import shape
from pdbench.load.delta import Clock, Final
from pdbench.load.drive import READY_LIMIT_S, STOP_LIMIT_S, limit_s, retimed
from pdbench.load.job import Job
from pdbench.load.journal import read_journal
from pdbench.load.lag import LagSummary
from pdbench.load.merging import DeltaMerger, coarser_clock, merge_facts, worst_lag
from pdbench.load.messages import (
    Ack,
    Counts,
    EngineReady,
    EngineRefused,
    Go,
    Halt,
    JobPart,
    JournalPart,
    Ping,
    Pong,
    Repace,
    RunDone,
    ToMaster,
    boot_id,
)  # fmt: skip
from pdbench.load.muster import Member, Muster
from pdbench.load.offset import Offset, estimate, is_same_clock, moved
from pdbench.load.outcome import Edit, LoadOutcome, OnDelta, ShouldStop, Status, WorkerFacts
from pdbench.load.sharing import share
from pdbench.load.ship import JournalSink, pieces
from pdbench.measure.records import RequestRecord

LEAD_NS = 100_000_000  # from the last READY to t0, on top of two round trips
_PINGS = 32
_PING_GAP_S = 0.002
_PING_LIMIT_S = 1.0
_TICK_S = 0.1
_DELTA_S = 1.0
_COLLECT_S = 60.0  # on top of what the engines may take: for the rest of the journals
_ping_numbers = count()  # never one twice: an answer that comes late must not meet another question's instant


@dataclass(slots=True)
class Post:
    """A member in this run: what it was given and what is known of it."""

    member: Member
    rank: int
    job: Job | None
    sink: JournalSink
    clock: Clock | None = None
    ready: bool = False
    final: Final | None = None
    done: bool = False
    lost: str = ""
    stderr: list[str] = field(default_factory=list)
    lags: tuple[LagSummary, LagSummary] = (LagSummary(), LagSummary())
    pings: list[tuple[int, int, int]] = field(default_factory=list)
    before: Offset = field(default_factory=Offset)
    after: Offset | None = None

    @property
    def over(self) -> bool:
        return self.done or bool(self.lost)

    @property
    def same_clock(self) -> bool:
        return is_same_clock(self.before, boot_id(), self.member.hello.boot)

    @property
    def offset_ns(self) -> int:
        """To take off its stamps; exactly 0 where it reads our own clock."""
        return 0 if self.same_clock else self.before.offset_ns


class Round:
    """One job on the members that were gathered. Raises ``UsageError`` where it cannot be shared out among them."""

    def __init__(self, muster: Muster, members: Sequence[Member], job: Job) -> None:
        self._muster = muster
        self._job = job
        self._run = job.run_id
        shares = [share(job, rank, len(members)) for rank in range(len(members))]
        _check_reachable(job, members)
        journal = Path(job.journal)
        self._posts = [
            Post(member, rank, part, JournalSink(journal.with_name(f"{journal.name}.{rank}")))
            for rank, (member, part) in enumerate(zip(members, shares, strict=True))
        ]
        self._by_node = {post.member.node: post for post in self._posts}
        self._deltas = DeltaMerger()
        self._news = Event()
        self._refused: UsageError | None = None
        self._asked: dict[int, tuple[Post, int]] = {}
        self._t0_ns = 0
        self._halted = False
        self._last_ns = 0
        self._longer_s = 0.0
        self._edits: list[Edit] = []

    @property
    def id(self) -> str:
        return self._run

    # ---- what workers say

    def take(self, member: Member, message: ToMaster) -> None:
        post = self._by_node.get(member.node)
        if isinstance(message, Pong):
            asked, asked_ns = self._asked.get(message.number, (None, 0))
            if post is not None and post is asked:
                post.pings.append((asked_ns, message.clock_ns, time.monotonic_ns()))
            return
        if post is None or message.run != self._run or post.lost:
            return
        if isinstance(message, JournalPart):
            self._muster.send(member, Ack(self._run, post.sink.add(message.data)))
        elif isinstance(message, Counts):
            post.lags = message.delta.dispatch_lag, message.delta.client_lag
            self._deltas.add(post.rank, message.delta)
        elif isinstance(message, EngineReady):
            post.ready, post.clock = True, message.clock
        elif isinstance(message, EngineRefused):
            where = message.where or f"worker {member.name}"
            self._refused = UsageError(f"worker {member.name}: {message.error}", where=where, remedy=message.remedy)
        elif isinstance(message, RunDone):
            self._done(post, message)
        self._news.set()

    def _done(self, post: Post, message: RunDone) -> None:
        post.final, post.stderr = message.final, message.stderr
        if message.final is None:
            post.lost = f"its engine died: {message.reason}"
            self._deltas.lose(post.rank)
        else:
            facts = message.final.facts
            post.lags, post.clock, post.done = (facts.dispatch_lag, facts.client_lag), facts.clock, True

    # ---- the run

    def play(self, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """From sharing out to the merged outcome. Raises UsageError when a worker cannot run the job at all."""
        self._muster.listener = self.take
        try:
            self._muster.runner.stats.clear_all()
            self._measure_clocks()
            self._set_clocks()
            self._hand_out()
            if self._await_ready(should_stop):
                self._start()
            self._follow(on_delta, should_stop)
            if (last := self._deltas.take()) is not None and on_delta is not None:
                on_delta(last)
            self._measure_clocks()
            for post in self._posts:
                post.after = estimate(post.pings)
            return self._outcome()
        finally:
            if any(not post.over for post in self._posts):
                self._halt()
            self._muster.listener = None
            for post in self._posts:
                if post.lost:  # by us; it may live, and load the server still
                    self._muster.send(post.member, Halt(self._run))
                    self._muster.forget(post.member, self._run)
                post.sink.close()
                post.sink.path.unlink(missing_ok=True)

    def _measure_clocks(self) -> None:
        """Many pings to everyone; the quickest counts."""
        self._asked = {}
        for post in self._posts:
            post.pings = []
        for _ in range(_PINGS):
            for post in self._posts:
                if not post.lost:
                    number = next(_ping_numbers)
                    self._asked[number] = post, time.monotonic_ns()
                    self._muster.send(post.member, Ping(number))
            gevent.sleep(_PING_GAP_S)
        limit = time.monotonic() + _PING_LIMIT_S
        while time.monotonic() < limit and any(len(p.pings) < _PINGS for p in self._posts if not p.lost):
            gevent.sleep(_PING_GAP_S)

    def _set_clocks(self) -> None:
        """From the pings. A clock of another host that is not known makes all its instants worthless."""
        for post in self._posts:
            found = estimate(post.pings)
            post.before = found or Offset()
            if found is None and post.job is not None and not post.member.on_this_host:
                self._lose(post, "it did not answer when asked for its clock")

    def _hand_out(self) -> None:
        for post in self._posts:
            if post.lost:
                continue
            if post.job is None:
                post.ready = post.done = True
                continue
            data = msgspec.json.encode(post.job)
            for piece in pieces(data):
                self._muster.send(post.member, JobPart(self._run, len(data), piece))

    def _await_ready(self, should_stop: ShouldStop) -> bool:
        limit = time.monotonic() + READY_LIMIT_S
        while not all(post.ready for post in self._posts):
            self._tick(should_stop)
            if any(post.lost for post in self._posts) or self._halted:
                self._halt()
                return False
            if time.monotonic() > limit:
                for post in self._posts:
                    if not post.ready:
                        self._lose(post, "it was not ready in time")
                self._halt()
                return False
        return not self._halted

    def _start(self) -> None:
        slowest_ns = max(post.before.rtt_ns for post in self._posts)
        self._t0_ns = time.monotonic_ns() + LEAD_NS + 2 * slowest_ns
        for post in self._posts:
            if not post.over:
                self._muster.send(post.member, Go(self._run, self._t0_ns + post.offset_ns))
        self._last_ns = self._t0_ns + self._job.scheduled_ns[-1]

    def retime(self, factor: float) -> Edit | None:
        """What is left of the plan comes ``factor`` times as fast, from one instant for all workers. None where there
        is nothing to change: before t0, at the end, of a closed loop."""
        at_ns = time.monotonic_ns() + LEAD_NS + 2 * max(post.before.rtt_ns for post in self._posts)
        if not self._last_ns > at_ns or self._halted or self._job.concurrency or all(post.over for post in self._posts):
            return None
        for post in self._posts:
            if not post.over:
                self._muster.send(post.member, Repace(self._run, at_ns + post.offset_ns, factor))
        end_ns = self._last_ns
        self._last_ns = retimed(end_ns, at_ns, factor)
        self._longer_s += (self._last_ns - end_ns) / 1e9
        self._edits.append(Edit(at_ns - self._t0_ns, factor))
        return self._edits[-1]

    @property
    def lost(self) -> list[str]:
        """Who was lost so far, and why."""
        return [f"{post.member.name}: {post.lost}" for post in self._posts if post.lost]

    def _follow(self, on_delta: OnDelta, should_stop: ShouldStop) -> None:
        start_s, work_s = self._t0_ns / 1e9, limit_s(self._job)
        if not self._t0_ns:  # it never started: all that is left is to stop
            start_s, work_s = time.monotonic(), STOP_LIMIT_S
        limit = start_s + work_s + _COLLECT_S
        due = time.monotonic() + _DELTA_S
        while not all(post.over for post in self._posts):
            halted = self._halted
            self._tick(should_stop)
            now = time.monotonic()
            if self._halted and not halted:
                limit = now + STOP_LIMIT_S + _COLLECT_S
            if now > limit + self._longer_s:
                for post in self._posts:
                    self._lose(post, "it did not answer in time")
            if now >= due:
                due = now + _DELTA_S
                if (delta := self._deltas.take()) is not None and on_delta is not None:
                    on_delta(delta)

    def _tick(self, should_stop: ShouldStop) -> None:
        self._news.wait(_TICK_S)
        self._news.clear()
        if self._refused is not None:
            raise self._refused
        if should_stop is not None and should_stop():
            self._halt()
        for post in self._posts:
            self._lose(post, self._muster.how_gone(post.member))

    def _halt(self) -> None:
        if self._halted:
            return
        self._halted = True
        for post in self._posts:
            if not post.over:
                self._muster.send(post.member, Halt(self._run))

    def _lose(self, post: Post, why: str) -> None:
        """Count it out, unless it is over already or nothing is wrong."""
        if why and not post.over:
            post.lost = why
            self._deltas.lose(post.rank)
            self._muster.say(f"worker {post.member.name} was lost, the others go on: {why}")

    # ---- the outcome

    def _outcome(self) -> LoadOutcome:
        finals = [post.final for post in self._posts if post.final is not None]
        lost = [post for post in self._posts if post.lost]
        status: Status = "complete"
        if any(final.stopped for final in finals) or (self._halted and not lost):
            status = "interrupted"
        if lost:
            status = "engine_died"
        records = {post.rank: self._records(post) for post in self._posts}
        merged = sorted((record for found in records.values() for record in found), key=lambda record: record.index)
        worked = [post for post in self._posts if post.job is not None]
        return LoadOutcome(
            status=status,
            records=merged,
            t0_ns=self._t0_ns,
            dispatch_lag=worst_lag([post.lags[0] for post in worked]),
            client_lag=worst_lag([post.lags[1] for post in worked]),
            clock=coarser_clock([post.clock for post in worked]),
            facts=merge_facts([final.facts for final in finals]) if not lost else None,
            locust=shape.view(self._muster.runner.environment),
            stderr=[f"{post.member.name}: {line}" for post in lost for line in post.stderr],
            reason="; ".join(f"worker {post.member.name} was lost: {post.lost}" for post in lost),
            workers_lost=[post.member.name for post in lost],
            losses=self.lost,
            offered=sum(final.offered for final in finals),
            edits=[self._took(edit) for edit in self._edits],
            workers=[self._facts(post, len(records[post.rank])) for post in self._posts],
        )

    def _took(self, edit: Edit) -> Edit:
        """With the instant at which the last of the workers had followed."""
        at_ns = self._t0_ns + edit.at_ns
        took = [
            post.final.took_ns(at_ns + post.offset_ns) - post.offset_ns
            for post in self._posts
            if post.final is not None
        ]
        return Edit(max([at_ns, *took]) - self._t0_ns, edit.factor)

    def _records(self, post: Post) -> list[RequestRecord]:
        post.sink.close()
        # In a thread: decoding a million records takes seconds, and heartbeats want answers.
        records = gevent.get_hub().threadpool.apply(read_journal, (post.sink.path,))
        return [moved(record, post.offset_ns) for record in records]

    def _facts(self, post: Post, requests: int) -> WorkerFacts:
        return WorkerFacts(
            name=post.member.name,
            host=post.member.hello.host,
            pid=post.member.hello.pid,
            rank=post.rank,
            ranks=len(self._posts),
            same_clock=post.same_clock,
            clock_offset_ns=post.offset_ns,
            rtt_ns=post.before.rtt_ns,
            drift_ns=post.after.offset_ns - post.before.offset_ns if post.after and not post.same_clock else 0,
            requests=requests,
            lost=bool(post.lost),
            dispatch_lag=post.lags[0],
            client_lag=post.lags[1],
            facts=post.final.facts if post.final else None,
        )


def _check_reachable(job: Job, members: Sequence[Member]) -> None:
    """A server on the loopback of this host is another one, or none, seen from another host."""
    if not _is_loopback(job.endpoint.host):
        return
    for member in members:
        if not member.on_this_host:
            raise UsageError(
                f"worker {member.name} is on another host and cannot reach {job.base_url}",
                where="--base-url",
                remedy="name the server by an address that every worker reaches",
            )


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
