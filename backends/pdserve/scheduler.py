"""What runs in the next step: continuous batching, pure.

Sequences join and leave between steps; nobody waits for a batch to end. Four policies:

``prefill_first``  waiting prompts run before anybody decodes: shortest TTFT, and every running stream stalls
                   for as long as the prompts take. The classic interference.
``chunked``        every step carries all decodes and fills what is left of ``token_budget`` with prompt chunks
                   (Sarathi-Serve): the stall is bounded by the budget, the prompt pays with more steps.
``prefill_only``   a prefill worker: a sequence leaves as soon as its first token is out.
``decode_only``    a decode worker: sequences arrive with their KV in place.

First come, first served within the waiting queue: a prompt is never overtaken, even by a shorter one.
"""

from __future__ import annotations

from collections import deque

from pdserve.cache import SlotCache
from pdserve.config import Policy
from pdserve.sequence import Chunk, Sequence, Step


class Scheduler:
    """Plans steps over the sequences of one worker; ``cache`` says who may start."""

    def __init__(
        self, policy: Policy, cache: SlotCache, *, max_batch: int, max_batch_tokens: int, token_budget: int
    ) -> None:
        self.policy: Policy = policy
        self.cache = cache
        self.max_batch = max_batch
        self.max_batch_tokens = max_batch_tokens
        self.token_budget = token_budget
        self.waiting: deque[Sequence] = deque()
        self.arrived: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, seq: Sequence) -> None:
        """Queues a prompt. Its slot is taken when it starts."""
        self.waiting.append(seq)

    def adopt(self, seq: Sequence) -> None:
        """Takes over a sequence whose slot is reserved and whose KV is in place (decode side)."""
        self.arrived.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Forgets a sequence that ended, left or was cancelled. Its slot is the caller's to release."""
        for queue in (self.running, self.waiting, self.arrived):
            if seq in queue:
                queue.remove(seq)
                return

    def plan(self) -> Step | None:
        """The next step, or ``None`` when there is nothing to run."""
        while self.arrived and len(self.running) < self.max_batch:
            self.running.append(self.arrived.popleft())
        if self.policy == "chunked":
            decodes = self._decodes(self.token_budget)
            chunks = decodes + self._prefills(self.token_budget - len(decodes))
        else:
            chunks = self._prefills(self.max_batch_tokens) or self._decodes(self.max_batch)
        return Step(tuple(chunks)) if chunks else None

    def _decodes(self, most: int) -> list[Chunk]:
        ready = [s for s in self.running if s.pending == 1 and not s.prefilling]
        return [Chunk(s, s.computed, 1) for s in ready[:most]]

    def _prefills(self, budget: int) -> list[Chunk]:
        """Prompt chunks in order of arrival: first those already begun, then whoever finds a slot."""
        chunks = []
        for seq in self.running:
            if seq.prefilling and budget > 0:
                chunks.append(_chunk(seq, budget))
                budget -= chunks[-1].count
        while self.waiting and budget > 0 and len(self.running) < self.max_batch:
            seq = self.waiting[0]
            slot = self.cache.reserve(seq.id, seq.reserved)
            if slot is None:
                break
            seq.slot = slot
            self.waiting.popleft()
            self.running.append(seq)
            chunks.append(_chunk(seq, budget))
            budget -= chunks[-1].count
        return chunks


def _chunk(seq: Sequence, budget: int) -> Chunk:
    return Chunk(seq, seq.computed, min(seq.prompt_len - seq.computed, budget))
