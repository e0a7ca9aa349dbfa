"""The plainest HTTP client there is, for tests: it blocks, and hides nothing of what came back."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DEADLINE_S = 10.0


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


class Client:
    """Talks to a server on a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.port = port

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
