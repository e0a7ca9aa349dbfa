"""One worker's mind, without clock, device or socket: commands in, steps out, events back.

The loop around it is a few lines, and is the same on a real device, an emulated one and a virtual clock::

    for command in inbox: send(engine.handle(command, now()))
    step = engine.begin()
    tokens = executor.run(step.chunks); send(engine.finish(step, tokens, start_ns, end_ns)); send(engine.settle())

What ``finish`` returns is sent before ``settle`` copies KV, or first tokens would wait for the hand-off of their own
prompt. Commands are handled between steps only, never during one: that is how a worker with one compute thread lives,
and the simulator does likewise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Seq

from pdserve.cache import SlotCache
from pdserve.messages import (
    Cancel,
    Command,
    Emitted,
    Event,
    Failed,
    Grant,
    Peer,
    Prefill,
    Probe,
    Probed,
    Pull,
    Pulled,
    Pushed,
    Release,
    Reserve,
    Reserved,
    Shutdown,
    Stepped,
)
from pdserve.scheduler import Scheduler
from pdserve.sequence import Chunk, Sampling, Sequence, Step
from pdserve.transfer.base import Receiver, Sender, StaleTransfer


class Engine:
    """A worker's sequences from command to last token. ``now`` is used to stamp copies only."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        sender: Sender | None = None,
        receiver: Receiver | None = None,
        now: Callable[[], int],
        probe: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.scheduler = scheduler
        self.cache: SlotCache = scheduler.cache
        self.sender = sender
        self.receiver = receiver
        self.now = now
        self.probe = probe
        self.stopping = False
        self._live: dict[str, Sequence] = {}
        self._reserving: deque[Reserve] = deque()
        self._handoff: set[str] = set()
        self._granted: set[str] = set()
        self._held: dict[str, Sequence] = {}
        self._fresh: set[str] = set()

    # ---- commands

    def handle(self, command: Command) -> list[Event]:
        """Takes one command; what it brings about at once is returned."""
        match command:
            case Prefill():
                return self._prefill(command)
            case Reserve():
                self._reserving.append(command)
                return self._promise()
            case Grant():
                if command.id in self._live:
                    self._granted.add(command.id)
                return self._push()
            case Pull():
                return self._pull(command)
            case Release():
                if self.sender:
                    self.sender.release(command.place, command.generation)
                return self._push()
            case Cancel():
                self._reserving = deque(r for r in self._reserving if r.request.id != command.id)
                self._drop(command.id)
                return self._promise()
            case Peer() | Probe() | Shutdown():
                return self._manage(command)

    def _manage(self, command: Peer | Probe | Shutdown) -> list[Event]:
        """What is about the worker, not about a request."""
        if isinstance(command, Probe):
            return [Probed(self.probe())]
        if isinstance(command, Peer):
            if self.receiver:
                self.receiver.connect(command.index, command.outbox)
        else:
            self.stopping = True
        return []

    def _prefill(self, command: Prefill) -> list[Event]:
        seq = _sequence(command)
        if seq.reserved > self.cache.max_len:
            return [Failed(seq.id, f"{seq.reserved} tokens do not fit {self.cache.max_len}")]
        self._live[seq.id] = seq
        if command.handoff:
            self._handoff.add(seq.id)
        self.scheduler.add(seq)
        return []

    def _promise(self) -> list[Event]:
        """Grants waiting reservations in order while slots are free."""
        events: list[Event] = []
        while self._reserving:
            request = self._reserving[0].request
            seq = _sequence(request)
            if seq.reserved > self.cache.max_len:
                events.append(Failed(seq.id, f"{seq.reserved} tokens do not fit {self.cache.max_len}"))
                self._reserving.popleft()
                continue
            slot = self.cache.reserve(seq.id, seq.reserved)
            if slot is None:
                break
            self._reserving.popleft()
            seq.slot = slot
            self._live[seq.id] = seq
            events.append(Reserved(seq.id))
        return events

    def _pull(self, command: Pull) -> list[Event]:
        seq = self._live.get(command.id)
        if seq is None or self.receiver is None:
            return [Failed(command.id, "no slot is reserved for this hand-off")]
        start = self.now()
        try:
            self.receiver.pull(command.source, command.place, command.generation, seq.slot, command.positions)
        except StaleTransfer as stale:
            self._drop(seq.id)
            return [Failed(seq.id, str(stale)), *self._promise()]
        seq.computed = command.positions
        seq.emitted = 1
        seq.tokens.append(command.first)
        self._fresh.add(seq.id)
        self.scheduler.adopt(seq)
        return [Pulled(seq.id, start, self.now())]

    def _push(self) -> list[Event]:
        """Moves finished prompts whose place is granted into staging, oldest first."""
        events: list[Event] = []
        for seq in [s for s in self._held.values() if s.id in self._granted]:
            assert self.sender is not None
            start = self.now()
            ticket = self.sender.push(seq.slot, seq.computed)
            if ticket is None:
                break
            events.append(
                Pushed(seq.id, ticket.place, ticket.generation, seq.computed, ticket.nbytes, start, self.now())
            )
            self._drop(seq.id)
        return events

    def _drop(self, id: str) -> None:
        """Ends a request here and frees its slot, whatever state it is in. Unknown ids are fine."""
        seq = self._live.pop(id, None)
        if seq is None:
            return
        self.scheduler.remove(seq)
        self._held.pop(id, None)
        self._handoff.discard(id)
        self._granted.discard(id)
        self._fresh.discard(id)
        if self.cache.holds(id):
            self.cache.release(id)

    # ---- steps

    def begin(self) -> Step | None:
        """The step to run now, or ``None`` when there is nothing to do until the next command."""
        return self.scheduler.plan()

    def finish(self, step: Step, tokens: Seq[int | None], start_ns: int, end_ns: int) -> list[Event]:
        """Books a step that ran: KV written, tokens emitted, sequences that end or leave. ``settle`` comes next.

        ``tokens`` has one entry a chunk, ``None`` where the chunk did not sample.
        """
        began = [c.seq.id for c in step.chunks if c.start == 0 and c.is_prefill]
        decoding = [c.seq.id for c in step.chunks if c.seq.id in self._fresh]
        self._fresh.difference_update(decoding)
        prefill_tokens, decode_tokens = step.prefill_tokens, step.decode_tokens
        context = sum(c.start + c.count for c in step.chunks)
        emitted = [
            self._advance(chunk, token)
            for chunk, token in zip(step.chunks, tokens, strict=True)
            if _book(chunk) and token is not None
        ]
        return [
            Stepped(
                start_ns, end_ns, prefill_tokens, decode_tokens, context, len(step.chunks), began, decoding, emitted
            )
        ]

    def settle(self) -> list[Event]:
        """Hands on what the last step made ready: prompts that are done leave, slots that are free are promised."""
        return self._push() + self._promise()

    def _advance(self, chunk: Chunk, token: int) -> Emitted:
        seq = chunk.seq
        seq.emitted += 1
        seq.tokens.append(token)
        finish = ""
        if token in seq.eos and seq.emitted > seq.min_new:
            finish = "stop"
        elif seq.emitted >= seq.max_new:
            finish = "length"
        if finish:
            self._drop(seq.id)
        elif seq.id in self._handoff:
            self.scheduler.remove(seq)
            self._held[seq.id] = seq
        return Emitted(seq.id, token, finish)

    # ---- what it holds

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting) + len(self._reserving)

    @property
    def running(self) -> int:
        return len(self.scheduler.running) + len(self.scheduler.arrived)

    @property
    def live(self) -> int:
        """Requests this worker knows, in whatever state."""
        return len(self._live) + len(self._reserving)


def _book(chunk: Chunk) -> bool:
    """Marks the chunk's positions as written."""
    samples = chunk.samples
    chunk.seq.computed = chunk.start + chunk.count
    return samples


def _sequence(request: Prefill) -> Sequence:
    return Sequence(
        id=request.id,
        prompt_len=request.prompt_len,
        max_new=request.max_new,
        tokens=list(request.prompt),
        sampling=Sampling(request.temperature, request.seed),
        eos=frozenset(request.eos),
        min_new=request.min_new,
    )
