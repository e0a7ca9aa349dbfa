"""A service that answers by script, behind the real HTTP face on a real socket, in a thread of this process.

A script is what one request's iterator does: yield an ``Output``, wait for an ``asyncio.Event``, raise an
exception. The fake records every request submitted and every iterator closed, so that a test can tell that
nothing was left running.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from pdserve.api import build_app, make_runner
from pdserve.model.tokenizer import Detokenizer, Tokenizer
from pdserve.service import GenerateRequest, Output
from tests.e2e.client import DEADLINE_S, Client

EOS = 99

Script = Callable[[GenerateRequest], Iterable[Output | asyncio.Event | Exception]]


class FakeTokenizer:
    """A word is a token. Token 7 reads ``"w7 "``, the tokens in ``pieces`` read as they say."""

    vocab_size: int = 100
    eos: frozenset[int] = frozenset({EOS})

    def __init__(self, pieces: dict[int, str]) -> None:
        self.pieces = pieces

    def encode(self, text: str) -> list[int]:
        return [zlib.crc32(word.encode()) % self.vocab_size for word in text.split()]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.pieces.get(token, f"w{token} ") for token in tokens)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if messages[-1]["role"] == "assistant":
            raise ValueError("the last turn must be the user's")
        return self.encode(" ".join(f"{m['role']} {m['content']}" for m in messages))

    def stream(self) -> Detokenizer:
        return FakeDetokenizer(self)


class FakeDetokenizer:
    """``"\\x00"`` at the end of a piece keeps it until the next token, as an incomplete character would be."""

    def __init__(self, tokenizer: FakeTokenizer) -> None:
        self._tokenizer = tokenizer
        self._kept = ""

    def push(self, token: int) -> str:
        text = self._kept + self._tokenizer.decode([token])
        self._kept = text.rstrip("\x00") if text.endswith("\x00") else ""
        return "" if self._kept else text

    def flush(self) -> str:
        kept, self._kept = self._kept, ""
        return kept


def count_up(request: GenerateRequest) -> Iterator[Output]:
    """Tokens 0, 1, 2 ... up to the request's limit."""
    for index in range(request.max_new):
        yield Output(index % 90, "length" if index == request.max_new - 1 else None)


def tokens(*ids: int, finish: str = "length") -> Script:
    """These tokens, whatever was asked for."""
    return lambda _: [Output(id, finish if at == len(ids) - 1 else None) for at, id in enumerate(ids)]


class FakeOutputs:
    def __init__(self, service: FakeService, request: GenerateRequest) -> None:
        self._service = service
        self._request = request
        self._script = iter(service.script(request))

    def __aiter__(self) -> FakeOutputs:
        return self

    async def __anext__(self) -> Output:
        for item in self._script:
            if isinstance(item, Output):
                await asyncio.sleep(0)
                return item
            if isinstance(item, Exception):
                raise item
            await item.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self._service.closed.append(self._request.id)


class FakeService:
    model_name = "fake"
    max_len = 64

    def __init__(self, script: Script = count_up, pieces: dict[int, str] | None = None) -> None:
        self.script = script
        self.pieces = pieces or {}
        self.tokenizer: Tokenizer = FakeTokenizer(self.pieces)
        self.submitted: list[GenerateRequest] = []
        self.closed: list[str] = []
        self.refusal: Exception | None = None
        self.not_ready = ""
        self.records: list[dict[str, Any]] = []
        self.cleared = 0

    def ready(self) -> tuple[bool, str]:
        return not self.not_ready, self.not_ready

    def submit(self, request: GenerateRequest) -> FakeOutputs:
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(request)
        return FakeOutputs(self, request)

    def state(self) -> dict[str, Any]:
        counts = {"prefill_tokens": 12, "decode_steps": 3, "decode_tokens": 4, "steps": 5, "busy_ns": 6 * 10**9}
        worker = {"slots": 4, "slots_used": 1, "running": 1, "waiting": 2}
        return {
            "roles": {"prefill": {"workers": 1, **counts}},
            "workers": [worker, worker],
            "queues": {"prefill": 3, "handoff": 0},
            "transfers": {"count": 7, "bytes": 28672, "released": 7, "failed": 1},
        }

    async def probe(self) -> list[dict[str, Any]]:
        return [{"worker": 0, "device": "cpu:0", "gemm_ms": 1.5}]

    def lifecycles(self) -> list[dict[str, Any]]:
        return self.records

    def steps(self) -> list[dict[str, Any]]:
        return [{"worker": 0, "start_ns": 1, "end_ns": 2}]

    def clear(self) -> None:
        self.cleared += 1

    @property
    def idle(self) -> bool:
        """Every request that was submitted has been closed, once."""
        return sorted(self.closed) == sorted(request.id for request in self.submitted)


class Live(Client):
    """A server that is up, the service behind it, and the ways to talk to it."""

    def __init__(self, service: FakeService, port: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(port)
        self.service = service
        self.loop = loop

    def release(self, gate: asyncio.Event) -> None:
        self.loop.call_soon_threadsafe(gate.set)


@contextmanager
def live(service: FakeService, drop: Callable[[], bool] = lambda: False) -> Iterator[Live]:
    """The real application for ``service`` on a free port of 127.0.0.1, in its own thread and loop."""
    loop = asyncio.new_event_loop()
    runner = make_runner(build_app(service, drop), shutdown_timeout_s=0.1)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Live(service, port, loop)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(DEADLINE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()
