"""The C truth server: what its log says is what a socket gets."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.truth.server import MODELS, TruthServer, stalls

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]
TOKENS = 33
US = 1_000


@pytest.fixture(scope="module")
def truth() -> Iterator[TruthServer]:
    with TruthServer(ttft_us=3_000, gap_us=500) as server:
        yield server


def stream(truth: TruthServer, api: str, model: str, name: str) -> list[dict[str, Any]]:
    """Every event, by a socket and nothing else."""
    asked: dict[str, Any] = {"model": model, "max_tokens": TOKENS, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    asked |= {"messages": [{"role": "user", "content": "one two"}]} if "chat" in api else {"prompt": "one two"}
    body = json.dumps(asked).encode()
    head = f"POST /v1/{api} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
    data = b""
    with socket.create_connection(("127.0.0.1", int(truth.url.rpartition(":")[2])), timeout=10) as sock:
        sock.sendall(head.encode())
        sock.sendall(body)  # a request may come in pieces
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += sock.recv(65536)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    events = []
    rest = data.partition(b"\r\n\r\n")[2]
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        payload, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert payload.startswith(b"data: ")
        assert payload.endswith(b"\n\n")
        events.append(payload[6:-2])
    assert events.pop() == b"[DONE]"
    return [json.loads(event) for event in events]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("api", ["completions", "chat/completions"])
def test_the_log_is_what_was_received(truth: TruthServer, api: str, model: str) -> None:
    name = f"{api[:4]}-{model}"
    *events, usage = stream(truth, api, model, name)
    served = truth.log()[name]
    an_event = 2 if model == "two" else 1
    assert len(events) == len(served.before_ns) == -(-TOKENS // an_event)
    texts = [e["choices"][0]["delta"]["content"] if "chat" in api else e["choices"][0]["text"] for e in events]
    assert [len(text.split()) for text in texts] == served.tokens.tolist()
    assert "".join(texts).split() == [f"tok{i}" for i in range(TOKENS)]
    assert [e["choices"][0]["finish_reason"] for e in events] == [None] * (len(events) - 1) + ["length"]
    assert usage["usage"] == {"prompt_tokens": 2, "completion_tokens": TOKENS, "total_tokens": TOKENS + 2}
    assert (served.model, served.blocked) == (model, 0)
    check_schedule(model, name, served.due_ns, served.received_ns)
    assert (served.late_ns >= 0).all()  # never early
    assert (served.after_ns >= served.before_ns).all()


def check_schedule(model: str, name: str, due_ns: Any, received_ns: int) -> None:
    """The due instants are exact, however late the machine was."""
    gaps = np.diff(due_ns)
    if model == "aligned":
        assert not (due_ns % (500 * US)).any()
        return
    assert due_ns[0] == received_ns + 3_000 * US
    if model == "random":
        assert len(set(gaps.tolist())) == len(gaps)
        return
    long = [model == "stalls" and stalls(name, event) for event in range(1, TOKENS)][: len(gaps)]
    assert gaps.tolist() == [300_000 * US if one else 500 * US for one in long]


def test_it_forgets_on_demand_and_refuses_what_it_does_not_know(truth: TruthServer) -> None:
    stream(truth, "completions", "truth", "forgotten")
    truth.clear()
    assert truth.log() == {}
    body = b'{"model": "other", "max_tokens": 1, "stream": true, "prompt": "x"}'
    with socket.create_connection(("127.0.0.1", int(truth.url.rpartition(":")[2])), timeout=10) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")
