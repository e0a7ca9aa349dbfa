"""A server whose every write instant is known: the truth that a load generator is measured against.

    python benchmarks/truth_server.py --port-file /tmp/port.json --ttft-ms 50 --gap-ms 20

It speaks the streaming completions and chat APIs, waits a fixed time before the first token and between
tokens, and logs CLOCK_MONOTONIC right before each ``send``: late timers do not matter, since what is compared
is what was written. ``GET /log`` gives the log, ``GET /clear`` empties it. The ``model`` of a request selects
a scenario of ``truth_scenarios.py``: ``truth``, or a quirk that imitates what real servers do to clients.

It uses plain sockets on asyncio's own loop and nothing of pdbench, so that no mistake is made twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from time import monotonic_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a script

from benchmarks.truth_scenarios import SCENARIOS, Ask, Step


class Peer:
    """One client connection."""

    def __init__(self, server: TruthServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._in = b""
        self._out = b""
        self._steps: list[Step] = []
        self._entry: dict[str, Any] | None = None
        self._answered = 0
        self._at = 0.0
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        now = monotonic_ns()
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        head, end, rest = self._in.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._in = rest[length:]
        self._request(lines[0].split(" ")[1], headers, rest[:length], now)

    def _request(self, path: str, headers: dict[str, str], body: bytes, now: int) -> None:
        if not body:
            self._admin(path)
            return
        fields = json.loads(body)
        text = fields.get("prompt") or fields["messages"][0]["content"]
        ask = Ask(
            id=headers.get("x-request-id", ""),
            chat="messages" in fields,
            model=fields["model"],
            prompt_tokens=len(text.split()),
            max_tokens=fields["max_tokens"],
            continuous=bool(fields.get("stream_options", {}).get("continuous_usage_stats")),
            ttft_ms=self._server.ttft_ms,
            gap_ms=self._server.gap_ms,
        )
        if ask.model == "stale" and self._answered:
            self.close()  # a kept connection that is no longer served
            return
        self._entry = {"request_id": ask.id, "received_ns": now, "write_ns": [], "prompt_tokens": ask.prompt_tokens}
        self._server.log.append(self._entry)
        self._steps = SCENARIOS[ask.model](ask)
        self._at = self._server.loop.time()
        self._next()

    def _admin(self, path: str) -> None:
        answer: dict[str, Any] = {"requests": self._server.log} if path == "/log" else {"status": "ok"}
        if path == "/clear":
            self._server.log.clear()
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._write(head.encode() + body)

    def _next(self) -> None:
        if not self._steps:
            self._answered += 1
            return
        wait_s = self._steps[0].after_ms / 1e3
        if wait_s < 0:  # at the next multiple of the wait on the server's own clock
            self._at = (int(self._at / -wait_s + 1e-6) + 1) * -wait_s  # not twice the same one
        else:
            self._at += wait_s
        self._server.loop.call_at(self._at, self._step)

    def _step(self) -> None:
        if self._sock.fileno() < 0 or not self._steps:
            return
        step = self._steps.pop(0)
        stamp = monotonic_ns()
        if step.data:
            self._write(step.data)
        if self._entry is not None:
            self._entry["write_ns"] += [stamp] * step.tokens
        if step.close:
            self.close()
            return
        self._next()

    def _write(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        self._out = data
        self._flush()

    def _flush(self) -> None:
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._out:
            self._server.loop.add_writer(self._sock.fileno(), self._flush)
        else:
            self._server.loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._server.loop.remove_reader(self._sock.fileno())
        self._server.loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._steps = []


class TruthServer:
    """Listens on 127.0.0.1."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ttft_ms: float, gap_ms: float, port: int = 0) -> None:
        self.loop = loop
        self.ttft_ms = ttft_ms
        self.gap_ms = gap_ms
        self.log: list[dict[str, Any]] = []
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", port))
        self._sock.listen(1024)
        self._sock.setblocking(False)
        loop.add_reader(self._sock.fileno(), self._accept)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._sock.accept()
                Peer(self, sock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    server = TruthServer(loop, options.ttft_ms, options.gap_ms)
    # Ends with its starter: stdin closes.
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(0, 4096) else loop.stop())
    partial = options.port_file.with_suffix(".part")
    partial.write_text(json.dumps({"host": "127.0.0.1", "port": server.port}))
    partial.rename(options.port_file)
    loop.run_forever()


if __name__ == "__main__":
    main()
