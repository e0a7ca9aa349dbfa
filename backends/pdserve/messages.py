"""What the router and its workers say to each other: typed, msgpack on the wire, never pickle.

Commands go from the router to a worker, events come back. The same objects are handed over directly on the
virtual clock, so the protocol that is simulated is the protocol that runs.

A hand-off, as the messages tell it (P prefill worker, D decode worker, R router)::

    R -> P Prefill        R -> D Reserve          both at once: the slot is usually ready before the prompt is
                          D -> R Reserved         a slot on D is promised
    R -> P Grant                                  P may push as soon as the prompt is done
    P -> R Stepped        first token             streamed to the client from here
    P -> R Pushed                                 KV is in P's staging area, P's slot is free again
    R -> D Pull                                   D copies it into its slot
                          D -> R Pulled           acknowledged: R -> P Release frees the staging place
                          D -> R Stepped ...      every further token
"""

from __future__ import annotations

import msgspec

from pdserve.transfer.base import Outbox


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Encoded as a msgpack array headed by its class name."""


# ---- router to worker


class Prefill(Message, frozen=True):
    """Run this prompt. ``handoff``: stop after the first token and keep the KV until it is granted a place."""

    id: str
    prompt: list[int]
    prompt_len: int
    max_new: int
    min_new: int
    eos: list[int]
    temperature: float
    seed: int
    handoff: bool


class Reserve(Message, frozen=True):
    """Promise a slot to this request; answered by ``Reserved`` as soon as one is free."""

    request: Prefill


class Grant(Message, frozen=True):
    """The decode side holds a slot for this request: push its KV once the prompt is done."""

    id: str


class Pull(Message, frozen=True):
    """Copy the KV from worker ``source``'s staging place ``ticket`` and go on after ``first`` token."""

    id: str
    source: int
    place: int
    generation: int
    positions: int
    first: int


class Release(Message, frozen=True):
    """The staging place is no longer needed: pulled, given up, or its reader died."""

    place: int
    generation: int


class Cancel(Message, frozen=True):
    """Drop the request wherever it stands and free what it holds. Unknown ids are fine."""

    id: str


class Peer(Message, frozen=True):
    """Where worker ``index`` stages its KV (what its connector published)."""

    index: int
    outbox: Outbox


class Probe(Message, frozen=True):
    """Measure the device and answer with ``Probed``."""


class Shutdown(Message, frozen=True):
    """End now."""


# ---- worker to router


class Hello(Message, frozen=True):
    """The worker has built its model and is ready for work."""

    device: str
    pid: int
    max_len: int
    kv_bytes_per_token: int
    outbox: Outbox | None


class Emitted(msgspec.Struct, frozen=True, array_like=True):
    """One token of one request; ``finish`` on its last (``"length"`` or ``"stop"``)."""

    id: str
    token: int
    finish: str


class Stepped(Message, frozen=True):
    """One step is done. ``began``: prompts whose first chunk ran in it; ``decoding``: sequences whose first
    decode on this worker ran in it. Times are CLOCK_MONOTONIC (or virtual) ns."""

    start_ns: int
    end_ns: int
    prefill_tokens: int
    decode_tokens: int
    context_tokens: int
    sequences: int
    began: list[str]
    decoding: list[str]
    emitted: list[Emitted]


class Reserved(Message, frozen=True):
    id: str


class Pushed(Message, frozen=True):
    """The KV of ``positions`` tokens lies in staging place ``place``."""

    id: str
    place: int
    generation: int
    positions: int
    nbytes: int
    start_ns: int
    end_ns: int


class Pulled(Message, frozen=True):
    id: str
    start_ns: int
    end_ns: int


class Failed(Message, frozen=True):
    """This request cannot go on here (its KV was gone, it does not fit); what it held is free."""

    id: str
    reason: str


class Load(Message, frozen=True):
    """What the worker holds right now: for ``/admin/state``."""

    slots: int
    slots_used: int
    running: int
    waiting: int
    staged: int
    rss_bytes: int


class Probed(Message, frozen=True):
    """What ``executors.probe`` found, in ms."""

    times_ms: dict[str, float]


Command = Prefill | Reserve | Grant | Pull | Release | Cancel | Peer | Probe | Shutdown
Event = Hello | Stepped | Reserved | Pushed | Pulled | Failed | Load | Probed

encode = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
