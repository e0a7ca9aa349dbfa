"""A service that answers by script, behind the real HTTP face on a real socket, in a thread of this process.

A script is what one request's iterator does: yield an ``Output``, wait for an ``asyncio.Event``, raise an
exception. The fake records every request submitted and every iterator closed, so that a test can tell that
nothing was left running.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from pdserve.api import build_app, make_runner
from pdserve.model.tokenizer import Detokenizer, Tokenizer
from pdserve.service import GenerateRequest, Output

EOS = 99
DEADLINE_S = 10.0

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


class Reply:
    """A whole response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.raw = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def events(self) -> list[Any]:
        """The SSE events: JSON where it is JSON, else the text (``[DONE]``)."""
        lines = self.raw.decode().split("\n\n")
        assert lines.pop() == ""
        assert all(line.startswith("data: ") for line in lines)
        return [json.loads(line[6:]) if line[6:].startswith("{") else line[6:] for line in lines]


class Live:
    """A server that is up, and the ways to talk to it."""

    def __init__(self, service: FakeService, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.port = port
        self.loop = loop

    @contextmanager
    def open(
        self, path: str, body: Any, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Iterator[http.client.HTTPResponse]:
        """Send, and hand over the response as soon as its headers are there."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            link.request(method, path, raw, {"Content-Type": "application/json"} | (headers or {}))
            with link.getresponse() as response:
                yield response
        finally:
            link.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        with self.open(path, body, headers) as response:
            return Reply(response)

    def get(self, path: str, method: str = "GET") -> Reply:
        with self.open(path, b"", method=method) as response:
            return Reply(response)

    def complete(self, prompt: Any = "one two", **fields: Any) -> Reply:
        return self.post("/v1/completions", {"prompt": prompt} | fields)

    def chat(self, content: Any = "hello", **fields: Any) -> Reply:
        messages = [{"role": "user", "content": content}]
        return self.post("/v1/chat/completions", {"messages": messages} | fields)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def send(self, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
        """A raw connection with a request on its way."""
        raw = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        link = self.connect()
        link.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        return link

    def release(self, gate: asyncio.Event) -> None:
        self.loop.call_soon_threadsafe(gate.set)


def until(condition: Callable[[], object]) -> None:
    """Poll until true; fail after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.002)


def sample(page: str, name: str, *labels: str) -> float:
    """The value of the one sample with this name whose line has these labels."""
    lines = [line for line in page.splitlines() if re.match(rf"{re.escape(name)}(\{{| )", line)]
    (line,) = [line for line in lines if all(label in line for label in labels)]
    return float(line.rpartition(" ")[2])


@contextmanager
def live(service: FakeService) -> Iterator[Live]:
    """The real application for ``service`` on a free port of 127.0.0.1, in its own thread and loop."""
    loop = asyncio.new_event_loop()
    runner = make_runner(build_app(service), shutdown_timeout_s=0.1)

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
