"""What the truth server writes, scenario by scenario: ``truth``, and quirks that imitate what real servers do.

A scenario turns what a request wants into steps: wait, then write these bytes in one ``send``. Everything that does
not come from a clock depends on the request's id alone. Nothing of pdbench is used, so that no mistake is made twice.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

_OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


class Step(NamedTuple):
    """Wait, then write in one ``send``. A negative wait: until the next multiple of it, for all streams alike.
    ``tokens``: how many events in the write bear a token. ``close``: hang up."""

    after_ms: float
    data: bytes
    tokens: int = 0
    close: bool = False


class Ask(NamedTuple):
    """What a request wants."""

    id: str
    chat: bool
    model: str
    prompt_tokens: int
    max_tokens: int
    continuous: bool
    ttft_ms: float
    gap_ms: float


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(payload: dict[str, Any] | str) -> bytes:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return b"data: " + text.encode() + b"\n\n"


def token(ask: Ask, i: int, **more: Any) -> dict[str, Any]:
    """One token's chunk in the shape of the API asked for."""
    finish = "length" if i == ask.max_tokens - 1 else None
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    if ask.chat:
        choice["delta"] = {"content": f" tok{i}"}
    else:
        choice["text"] = f" tok{i}"
    body = {"id": ask.id, "created": 1700000000, "model": ask.model, "choices": [choice], **more}
    body["object"] = "chat.completion.chunk" if ask.chat else "text_completion"
    if ask.continuous:
        body["usage"] = usage(ask, i + 1)
    return body


def usage(ask: Ask, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": ask.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": ask.prompt_tokens + completion,
    }


def tokens(ask: Ask, head: bytes = _OK_HEAD, frame: Callable[[bytes], bytes] = chunk) -> list[Step]:
    steps = [Step(ask.ttft_ms, head + frame(event(token(ask, 0))), 1)]
    steps += [Step(ask.gap_ms, frame(event(token(ask, i))), 1) for i in range(1, ask.max_tokens)]
    return steps


def ending(ask: Ask) -> bytes:
    last = {"id": ask.id, "choices": [], "usage": usage(ask, ask.max_tokens)}
    return chunk(event(last)) + chunk(event("[DONE]")) + _END


def truth(ask: Ask) -> list[Step]:
    return [*tokens(ask), Step(0, ending(ask))]


def truth_aligned(ask: Ask) -> list[Step]:
    """As an engine that decodes in batches: all streams emit at the same instants."""
    return [step._replace(after_ms=-step.after_ms) for step in truth(ask)]


def stalls(ask: Ask) -> list[Step]:
    """1 % of the gaps are 300 ms. Which ones depends on nothing but the request's id."""
    draw = random.Random(ask.id)
    steps = truth(ask)
    late = [step._replace(after_ms=300.0) if draw.random() < 0.01 else step for step in steps[1:-1]]
    return [steps[0], *late, steps[-1]]


def random_gaps(ask: Ask) -> list[Step]:
    """Exponential gaps of mean ``gap_ms``, seeded by the request's id."""
    draw = random.Random(ask.id)
    steps = truth(ask)
    gaps = [step._replace(after_ms=-math.log(1 - draw.random()) * ask.gap_ms) for step in steps[1:-1]]
    return [steps[0], *gaps, steps[-1]]


def two(ask: Ask) -> list[Step]:
    """Two tokens an event; the usage counts both."""
    steps = []
    for i in range(0, ask.max_tokens, 2):
        last = min(i + 1, ask.max_tokens - 1)
        body = token(ask, last)
        choice = body["choices"][0]
        text = "".join(f" tok{j}" for j in range(i, last + 1))
        choice.update({"delta": {"content": text}} if ask.chat else {"text": text})
        steps.append(Step(ask.gap_ms if i else ask.ttft_ms, (b"" if i else _OK_HEAD) + chunk(event(body)), 1))
    return [*steps, Step(0, ending(ask))]


def role_first(ask: Ask) -> list[Step]:
    """llama.cpp and transformers: the role, with a null content, long before the first token."""
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]}
    first = Step(1, _OK_HEAD + chunk(event(role)) + chunk(b": a comment\n\n"))
    return [first, *tokens(ask, head=b""), Step(0, ending(ask))]


def reasoning(ask: Ask) -> list[Step]:
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]}
    first = Step(ask.ttft_ms, _OK_HEAD + chunk(event(thought)), 1)
    rest = [Step(ask.gap_ms, chunk(event(token(ask, i))), 1) for i in range(1, ask.max_tokens)]
    return [first, *rest, Step(0, ending(ask))]


def usage_in_last(ask: Ask) -> list[Step]:
    *steps, _ = tokens(ask)
    last = token(ask, ask.max_tokens - 1, usage=usage(ask, ask.max_tokens))
    return [*steps, Step(ask.gap_ms, chunk(event(last)), 1), Step(0, chunk(event("[DONE]")) + _END)]


def no_usage(ask: Ask) -> list[Step]:
    return [*tokens(ask), Step(0, chunk(event("[DONE]")) + _END)]


def no_done(ask: Ask) -> list[Step]:
    return [*tokens(ask), Step(0, _END)]


def open_end(ask: Ask) -> list[Step]:
    """``[DONE]``, but the body is never ended."""
    return [*tokens(ask), Step(0, ending(ask).removesuffix(_END))]


def until_close(ask: Ask) -> list[Step]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return [*tokens(ask, head, bytes), Step(0, event("[DONE]"), close=True)]


def pairs(ask: Ask) -> list[Step]:
    """Two events in one write, and usage for both in a chunk of its own."""
    steps = [Step(ask.ttft_ms, _OK_HEAD)]
    for i in range(0, ask.max_tokens, 2):
        both = b"".join(chunk(event(token(ask, j))) for j in range(i, min(i + 2, ask.max_tokens)))
        steps.append(Step(ask.gap_ms, both, min(2, ask.max_tokens - i)))
    return [*steps, Step(0, ending(ask))]


def broken_off(ask: Ask) -> list[Step]:
    return [*tokens(ask)[:2], Step(1, b"", close=True)]


def ended_early(ask: Ask) -> list[Step]:
    return [*tokens(ask)[:2], Step(1, _END)]


def error_inside(ask: Ask) -> list[Step]:
    fault = {"error": {"message": "CUDA out of memory", "type": "InternalServerError", "code": 500}}
    return [*tokens(ask)[:2], Step(1, chunk(event(fault)) + chunk(event("[DONE]")) + _END)]


def no_token(ask: Ask) -> list[Step]:
    return [Step(1, _OK_HEAD + ending(ask))]


def oversized(_: Ask) -> list[Step]:
    return [Step(1, _OK_HEAD), *[Step(0, chunk(b"data: " + b"x" * 60_000)) for _ in range(40)]]


def silent(_: Ask) -> list[Step]:
    return []


def plain(status: str, body: bytes, *headers: str) -> Callable[[Ask], list[Step]]:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)) + "\r\n\r\n"
    return lambda _: [Step(1, head.encode() + body)]


_JSON = "Content-Type: application/json"
SCENARIOS: dict[str, Callable[[Ask], list[Step]]] = {
    "truth": truth,
    "truth-aligned": truth_aligned,
    "stalls": stalls,
    "random": random_gaps,
    "two": two,
    "role-first": role_first,
    "reasoning": reasoning,
    "usage-in-last": usage_in_last,
    "no-usage": no_usage,
    "no-done": no_done,
    "open-end": open_end,
    "until-close": until_close,
    "pairs": pairs,
    "broken-off": broken_off,
    "ended-early": ended_early,
    "error-inside": error_inside,
    "no-token": no_token,
    "oversized": oversized,
    "silent": silent,
    "stale": truth,
    "reject": plain("429 Too Many Requests", b'{"error":{"message":"queue is full"}}', _JSON),
    "overloaded": plain("503 Service Unavailable", b'{"detail":"draining"}', _JSON),
    "fails": plain("500 Internal Server Error", b'{"error":"boom"}', _JSON),
    "redirect": plain("307 Temporary Redirect", b"", "Location: http://elsewhere.invalid/"),
    "json": plain("200 OK", b'{"choices":[{"text":"all at once"}]}', _JSON),
    "gzip": plain("200 OK", b"\x1f\x8b", "Content-Type: text/event-stream", "Content-Encoding: gzip"),
    "no-http": lambda _: [Step(1, b"SSH-2.0-OpenSSH_9.6\r\n", close=True)],
}
