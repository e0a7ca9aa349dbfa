"""A device that exists only as a cost model: how long a step or a hand-off would take, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from pdserve.config import CostModel
from pdserve.sequence import Step
from pdserve.transfer.base import Outbox, Places, Ticket

NS_PER_MS = 1_000_000


def step_ns(cost: CostModel, step: Step) -> int:
    """Duration of one step in ns, by the formula in ``config.CostModel``."""
    ms = cost.step_ms + cost.prefill_ms_per_token * step.prefill_tokens
    for chunk in step.chunks:
        if chunk.is_prefill:
            ms += cost.attention_ms_per_mtoken2 * chunk.count * (chunk.start + chunk.count / 2) / 1e6
    decodes = [c for c in step.chunks if not c.is_prefill]
    if decodes:
        ms += cost.decode_ms_per_step + cost.decode_ms_per_sequence * len(decodes)
        ms += cost.decode_ms_per_mtoken * sum(c.start + c.count for c in decodes) / 1e6
    return round(ms * NS_PER_MS)


def transfer_ns(cost: CostModel, nbytes: int) -> int:
    """Duration of one hand-off in ns: a constant and the bytes over the link's bandwidth."""
    seconds = nbytes / (cost.transfer_gb_per_s * 1e9) if cost.transfer_gb_per_s else 0.0
    return round(cost.transfer_ms * NS_PER_MS + seconds * 1e9)


@dataclass(slots=True)
class VirtualSender:
    """Staging places without bytes behind them."""

    places: Places
    bytes_per_token: int

    def outbox(self) -> Outbox:
        return Outbox("virtual", 0, 0)

    def push(self, slot: int, positions: int) -> Ticket | None:  # noqa: ARG002 - the protocol's signature
        place = self.places.take()
        if place is None:
            return None
        return Ticket(place, self.places.generations[place], positions * self.bytes_per_token)

    def release(self, place: int, generation: int) -> None:
        self.places.give_back(place, generation)

    @property
    def staged(self) -> int:
        return self.places.used

    def close(self) -> None:
        pass


class VirtualReceiver:
    """Takes every hand-off at once: the link's time is spent before the message arrives."""

    def connect(self, source: int, outbox: Outbox) -> None:
        pass

    def pull(self, source: int, place: int, generation: int, slot: int, positions: int) -> None:
        pass

    def close(self) -> None:
        pass
