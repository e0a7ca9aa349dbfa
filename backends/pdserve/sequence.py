"""What the scheduler moves about: a sequence, a chunk of it, and a step made of chunks.

A sequence knows how many positions of its KV cache are written (``computed``) and how many tokens it has
emitted. A chunk asks the executor to run positions ``start .. start + count`` of one sequence; it samples a
token exactly when it reaches the end of what is known. A decode is a chunk of one position; a prefill is a
chunk of many. That is the whole difference, and why one executor serves both phases.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 is greedy; ``seed`` makes a draw repeatable."""

    temperature: float = 0.0
    seed: int = 0


GREEDY = Sampling()


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on one worker.

    ``tokens`` holds the prompt and everything emitted so far; on the virtual clock nobody needs token ids
    and it stays empty. ``max_new`` counts every output token of the request, also the first one that a
    prefill worker emitted before this worker saw the request. ``eos`` ends a sequence early once
    ``min_new`` tokens are out.
    """

    id: str
    prompt_len: int
    max_new: int
    tokens: list[int] = field(default_factory=list)
    sampling: Sampling = GREEDY
    eos: frozenset[int] = frozenset()
    min_new: int = 0
    slot: int = -1
    computed: int = 0
    emitted: int = 0

    @property
    def known(self) -> int:
        """Positions whose token is known: the prompt and what was emitted."""
        return self.prompt_len + self.emitted

    @property
    def pending(self) -> int:
        """Known positions whose KV is not written yet: 1 while decoding, more while prefilling."""
        return self.known - self.computed

    @property
    def prefilling(self) -> bool:
        return self.computed < self.prompt_len

    @property
    def reserved(self) -> int:
        """KV positions to reserve so that the sequence can always run to its end."""
        return self.prompt_len + self.max_new


@dataclass(frozen=True, slots=True)
class Chunk:
    """Run positions ``start .. start + count`` of ``seq``."""

    seq: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """True when the chunk reaches the last known position, so a next token comes out."""
        return self.start + self.count == self.seq.known

    @property
    def is_prefill(self) -> bool:
        return self.start < self.seq.prompt_len


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of the model: the chunks of up to ``max_batch`` sequences, each sequence at most once."""

    chunks: tuple[Chunk, ...]

    @property
    def prefill_tokens(self) -> int:
        return sum(c.count for c in self.chunks if c.is_prefill)

    @property
    def decode_tokens(self) -> int:
        return sum(c.count for c in self.chunks if not c.is_prefill)
