"""The seam between the HTTP face (``api.py``) and whatever serves behind it (``cluster.py``, or a fake in tests)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from pdserve.model.tokenizer import Tokenizer
from pdserve.sequence import Sampling


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. ``id`` is unique among live requests; ``arrive_ns`` is CLOCK_MONOTONIC."""

    id: str
    tokens: tuple[int, ...]
    max_new: int
    sampling: Sampling
    eos: frozenset[int]
    min_new: int
    arrive_ns: int


@dataclass(frozen=True, slots=True)
class Output:
    """One emitted token, or (``token is None``) an end without a token. ``finish`` is set on the last one:
    ``"length"``, ``"stop"`` (an end-of-sequence token, not to be shown) or ``"error"``."""

    token: int | None
    finish: str | None = None
    error: str = ""


class Unavailable(Exception):  # noqa: N818 - it is a state, not a fault
    """The service cannot take the request now (starting, draining, a role has no live worker): HTTP 503."""


class Service(Protocol):
    """What the HTTP face needs. All methods are called on the event loop's thread."""

    model_name: str
    max_len: int
    tokenizer: Tokenizer

    def ready(self) -> tuple[bool, str]:
        """Whether every role has a live worker, and if not, why."""
        ...

    def submit(self, request: GenerateRequest) -> AsyncIterator[Output]:
        """Queue the request and stream its outputs. Closing the iterator early cancels the request and
        frees its slots on both sides. Raises ``Unavailable``."""
        ...

    def state(self) -> dict[str, Any]:
        """``/admin/state``: roles, queues, counters per role, memory."""
        ...

    async def probe(self) -> list[dict[str, Any]]:
        """Measures every live worker's device, one after the other: a row each with ``worker``, ``device`` and times
        in ms. Ask only while nothing is being served."""
        ...

    def lifecycles(self) -> list[dict[str, Any]]:
        """Stamps (ns, CLOCK_MONOTONIC) of the finished requests still kept, oldest first."""
        ...

    def steps(self) -> list[dict[str, Any]]:
        """The step log still kept, oldest first."""
        ...

    def clear(self) -> None:
        """Forget kept lifecycles, steps and counters (between two runs)."""
        ...
