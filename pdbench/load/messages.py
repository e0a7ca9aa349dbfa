"""What master and workers say to each other, on top of Locust's own messages.

The handshake is plain dictionaries, so that any version understands enough to refuse another: ``WHO`` asks, ``HELLO``
answers, then ``WELCOME`` or ``REFUSED``. All else is one Locust message, ``TALK``, whose payload is msgpack of one
of the structs below. Nothing here holds a secret: a job names the variable of an API key, never the key.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

import pdbench
from pdbench.load.delta import Clock, Delta, Final

PROTOCOL = 2
WHO, HELLO, WELCOME, REFUSED = "pdbench-who", "pdbench-hello", "pdbench-welcome", "pdbench-refused"
TALK = "pdbench-talk"
PART_BYTES = 1 << 19
"""Of a job or a journal in one message."""
WINDOW_BYTES = 8 * PART_BYTES
"""Of a journal on its way, not yet acknowledged: bounds the memory of both sides and of the sockets between."""


class Hello(msgspec.Struct, frozen=True):
    """Who a worker is. ``boot``: of its kernel; the same on both sides means one machine."""

    version: str
    protocol: int
    host: str
    pid: int
    boot: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.pid}"


def our_hello() -> Hello:
    return Hello(pdbench.__version__, PROTOCOL, socket.gethostname(), os.getpid(), boot_id())


def boot_id() -> str:
    """Which boot of which kernel this is; ``""`` where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def refusal(theirs: Hello) -> str:
    """Why a worker cannot be taken; ``""`` if it can. Records of two versions are not one measurement."""
    ours = our_hello()
    if (theirs.version, theirs.protocol) == (ours.version, ours.protocol):
        return ""
    said = f"worker {theirs.name} runs pdbench {theirs.version} (protocol {theirs.protocol})"
    return f"{said}, the master {ours.version} (protocol {ours.protocol}): install the same version on both"


# ---- to a worker


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    number: int


class JobPart(msgspec.Struct, frozen=True, tag="job"):
    """A piece of a job (JSON), ``size`` bytes in all; the worker starts its engine when it has them all."""

    run: str
    size: int
    data: bytes


class Go(msgspec.Struct, frozen=True, tag="go"):
    """``t0_ns`` is on the worker's own clock."""

    run: str
    t0_ns: int


class Halt(msgspec.Struct, frozen=True, tag="halt"):
    run: str


class Repace(msgspec.Struct, frozen=True, tag="repace"):
    """``Retime`` for the engine; ``at_ns`` is on the worker's own clock."""

    run: str
    at_ns: int
    factor: float


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """So many bytes of the journal have arrived."""

    run: str
    upto: int


ToWorker = Ping | JobPart | Go | Halt | Repace | Ack


# ---- to the master


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    number: int
    clock_ns: int


class EngineReady(msgspec.Struct, frozen=True, tag="ready"):
    run: str
    clock: Clock


class EngineRefused(msgspec.Struct, frozen=True, tag="refused"):
    run: str
    error: str
    where: str
    remedy: str


class Counts(msgspec.Struct, frozen=True, tag="counts"):
    run: str
    delta: Delta


class JournalPart(msgspec.Struct, frozen=True, tag="part"):
    """Bytes of the journal, in order and without gaps."""

    run: str
    data: bytes


class RunDone(msgspec.Struct, frozen=True, tag="done"):
    """The engine has ended and its journal was sent. ``final`` is None when it died; ``reason`` says how."""

    run: str
    final: Final | None
    reason: str
    stderr: list[str]


ToMaster = Pong | EngineReady | EngineRefused | Counts | JournalPart | RunDone


def pack(message: Any) -> dict[str, bytes]:
    """As Locust's messages carry it."""
    return {"pdbench": msgspec.msgpack.encode(message)}


def unpack_to_worker(data: Any) -> ToWorker:
    """Raises ``msgspec.MsgspecError`` for what is none."""
    message: ToWorker = msgspec.msgpack.decode(_bytes(data), type=ToWorker)
    return message


def unpack_to_master(data: Any) -> ToMaster:
    """Raises ``msgspec.MsgspecError`` for what is none."""
    message: ToMaster = msgspec.msgpack.decode(_bytes(data), type=ToMaster)
    return message


def _bytes(data: Any) -> bytes:
    found = data.get("pdbench") if isinstance(data, dict) else None
    if not isinstance(found, bytes):
        raise msgspec.ValidationError("not a message of pdbench")
    return found
