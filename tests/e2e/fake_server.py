"""A server that is not ours: the least of OpenAI's streaming API, with quirks on demand, in its own process.

    python tests/e2e/fake_server.py --port 0 --port-file P --quirk role_chunk

Tokens are words times ``--tokens-per-word`` (rounded up) plus ``--overhead``, so that calibration has something
to find. Quirks: ``role_chunk`` (an empty first chunk, as llama.cpp sends), ``no_usage``, ``no_health``,
``refuse_extra`` (400 for ignore_eos), ``fail_every`` N (HTTP 500), ``die_after`` N requests, ``slow_start`` S.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp import web


class Fake:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.served = 0

    async def models(self, request: web.Request) -> web.Response:
        entry: dict[str, Any] = {"id": "fake", "object": "model", "max_model_len": self.args.max_model_len}
        return web.json_response({"object": "list", "data": [entry]})

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.served += 1
        if self.args.die_after and self.served > self.args.die_after:
            sys.stderr.write("fake server: out of memory, really\n")
            sys.stderr.flush()
            os._exit(3)
        if self.args.fail_every and self.served % self.args.fail_every == 0:
            return web.json_response({"error": {"message": "no luck"}}, status=500)
        if body.get("model") != "fake":
            return web.json_response({"error": {"message": "unknown model"}}, status=404)
        if self.args.refuse_extra and ("ignore_eos" in body or "min_tokens" in body):
            return web.json_response({"error": {"message": "unknown parameter"}}, status=400)
        chat = request.path.endswith("chat/completions")
        text = body["messages"][0]["content"] if chat else body["prompt"]
        words = text if isinstance(text, list) else text.split()
        prompt_tokens = math.ceil(len(words) * self.args.tokens_per_word) + self.args.overhead
        count = int(body.get("max_tokens") or 16)
        if not body.get("stream"):
            return web.json_response(
                {"choices": [self._choice(chat, "w " * count)], **self._usage(prompt_tokens, count)}
            )
        return await self._stream(request, body, chat, prompt_tokens, count)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], chat: bool, prompt_tokens: int, count: int
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        if self.args.role_chunk:
            await self._send(answer, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
        await asyncio.sleep(self.args.ttft_ms / 1e3)
        for index in range(count):
            await self._send(answer, {"choices": [self._choice(chat, f" w{index}", delta=True)]})
            if index + 1 < count:
                await asyncio.sleep(self.args.gap_ms / 1e3)
        if (body.get("stream_options") or {}).get("include_usage") and not self.args.no_usage:
            await self._send(answer, {"choices": [], **self._usage(prompt_tokens, count)})
        await answer.write(b"data: [DONE]\n\n")
        return answer

    def _choice(self, chat: bool, text: str, *, delta: bool = False) -> dict[str, Any]:
        if not chat:
            return {"index": 0, "text": text}
        return {"index": 0, "delta" if delta else "message": {"content": text}}

    def _usage(self, prompt: int, output: int) -> dict[str, Any]:
        if self.args.no_usage:
            return {}
        return {"usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}}

    async def _send(self, answer: web.StreamResponse, event: dict[str, Any]) -> None:
        await answer.write(f"data: {json.dumps(event)}\n\n".encode())


async def main(args: argparse.Namespace) -> None:
    await asyncio.sleep(args.slow_start)
    if args.die_at_start:
        sys.stderr.write("fake server: CUDA error: invalid device ordinal\n")
        sys.exit(3)
    fake = Fake(args)
    app = web.Application()
    app.router.add_get("/v1/models", fake.models)
    app.router.add_post("/v1/completions", fake.completions)
    app.router.add_post("/v1/chat/completions", fake.completions)
    if not args.no_health:
        app.router.add_get("/health", fake.health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", args.port)
    await site.start()
    port = runner.addresses[0][1]
    if args.port_file:
        part = args.port_file.with_suffix(".part")
        part.write_text(str(port))
        part.rename(args.port_file)
    await asyncio.Event().wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--ttft-ms", type=float, default=5.0)
    parser.add_argument("--gap-ms", type=float, default=2.0)
    parser.add_argument("--tokens-per-word", type=float, default=1.0)
    parser.add_argument("--overhead", type=int, default=0)
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--fail-every", type=int, default=0)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--slow-start", type=float, default=0.0)
    for flag in ("--role-chunk", "--no-usage", "--no-health", "--refuse-extra", "--die-at-start"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
