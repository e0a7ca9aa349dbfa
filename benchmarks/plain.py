"""The client that a careful person would write with aiohttp: the yardstick beside pdbench's own engine.

It sleeps to each request's instant, posts, and stamps each line of the stream as it gets it. Run by the benchmarks:
the plan comes as msgpack on stdin, what was seen goes to stdout.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import msgspec

from benchmarks.judge import Seen

_LEAD_NS = 200_000_000
_TIMEOUT_S = 300


async def play(asked: dict[str, Any]) -> list[Seen]:
    """Every request of the plan; those that fail are left out."""
    t0 = time.monotonic_ns() + _LEAD_NS

    async def one(session: aiohttp.ClientSession, i: int) -> Seen | None:
        scheduled = t0 + asked["due"][i]
        await asyncio.sleep((scheduled - time.monotonic_ns()) / 1e9)
        body = {
            "model": asked["model"],
            "prompt": asked["texts"][i],
            "max_tokens": asked["tokens"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        name = f"{asked['run_id']}-{i}"
        stamps: list[int] = []
        tokens = None
        sent = time.monotonic_ns()
        try:
            async with session.post(asked["url"], json=body, headers={"X-Request-Id": name}) as response:
                async for line in response.content:
                    now = time.monotonic_ns()
                    if not line.startswith(b"data: {"):
                        continue
                    event = json.loads(line[6:])
                    if event["choices"]:
                        stamps.append(now)
                    else:
                        tokens = event["usage"]["completion_tokens"]
        except (aiohttp.ClientError, TimeoutError):
            return None
        counts = [1] * len(stamps) if tokens == len(stamps) else []
        return Seen(name, scheduled, sent, stamps, counts, tokens)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        seen = await asyncio.gather(*(one(session, i) for i in range(len(asked["due"]))))
    return [request for request in seen if request is not None]


def main() -> None:
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read())
    seen = asyncio.run(play(asked))
    sys.stdout.buffer.write(msgspec.msgpack.encode({"seen": seen, "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main()
