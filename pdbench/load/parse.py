"""From the bytes of one streamed answer to token-bearing chunks, usage and how it ended.

This runs after the request ended (or when much has piled up), never in the moment bytes arrive: the receive
stamp is already taken, so parsing may wait and no stream pays for another's JSON.

Servers differ. A token-bearing chunk has non-empty ``text``, ``content``, ``reasoning_content``,
``reasoning`` or ``tool_calls``: role-only chunks, ``"content": null``, usage-only chunks and comments are
not tokens (counting them would call the first role chunk the first token). ``usage`` comes in every chunk,
in the last one, or in one of its own with empty ``choices``. An error may arrive inside a 200 stream.
``[DONE]`` may be missing. A ``usage`` that cannot be true (no count, more tokens than were asked for, fewer than
chunks that bear one) is noted and not believed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from pdbench.load.sse import MAX_EVENT_BYTES, Event, SseOverflow, SseParser
from pdbench.measure.records import Status, TokenSource

REJECTED = frozenset({429, 503, 529})  # "come back later": refused for load, not broken
_BROKEN_FINISH = frozenset({"error", "abort"})


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    text: Any = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: str | None = None
    message: Any = None


_decode = msgspec.json.Decoder(_Body).decode
# Not JSON, nested beyond the interpreter's stack, or a number beyond its limits.
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
_MOST_TOKENS = 1 << 31


def _bears_token(choices: list[_Choice]) -> bool:
    for choice in choices:
        if choice.text:
            return True
        delta = choice.delta
        if delta is not None and (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls):
            return True
    return False


def error_text(error: Any) -> str:
    """One line for a server's error object, whatever its shape, at most 300 characters."""
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("code") or error
    return " ".join(str(error).split())[:300]


def body_excerpt(body: bytes) -> str:
    """What an error answer says, for the record: its JSON message, else its beginning."""
    try:
        parsed = msgspec.json.decode(body)
    except _NOT_JSON:
        return error_text(body[:300].decode("utf-8", "replace"))
    if isinstance(parsed, dict):
        return error_text(parsed.get("error") or parsed.get("detail") or parsed)
    return error_text(parsed)


class Counted(NamedTuple):
    """Tokens per chunk and where the numbers come from."""

    tokens: list[int]
    source: TokenSource


def count_tokens(cumulative: list[int | None], total: int | None) -> Counted:
    """Tokens of each token-bearing chunk.

    ``cumulative[i]``: the ``completion_tokens`` that chunk ``i`` itself carried. If every chunk has one and
    they do not fall, their differences are the counts (exact). Else the total of ``usage`` is spread evenly
    by cumulative rounding, so that the sum is exact and a surplus (an end token without text) falls late.
    Without usage each chunk counts as one token.
    """
    n = len(cumulative)
    known = [c for c in cumulative if c is not None]
    if n > 1 and len(known) == n:
        counts = [b - a for a, b in zip([0, *known], known, strict=False)]
        if min(counts) >= 0:
            return Counted(counts, "continuous_usage")
    if total is None or n == 0:
        return Counted([1] * n, "chunks")
    return Counted([(i + 1) * total // n - i * total // n for i in range(n)], "usage_over_chunks")


class AnswerReader:
    """Feed it the body with its receive stamps; it gathers what a record needs."""

    __slots__ = (
        "_cumulative",
        "_events",
        "_last_ns",
        "_odd",
        "_sse",
        "_streak",
        "chunk_ns",
        "completion_tokens",
        "done",
        "error",
        "finish_reason",
        "max_events_per_read",
        "merged_events",
        "prompt_tokens",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._sse = SseParser(max_event_bytes)
        self._events = 0
        self._cumulative: list[int | None] = []
        self._last_ns = -1
        self._streak = 0
        self.chunk_ns: list[int] = []
        self.completion_tokens: int | None = None
        self.prompt_tokens: int | None = None
        self.finish_reason: str | None = None
        self.done = False
        self.error = ""
        self.max_events_per_read = 0
        self.merged_events = 0
        self._odd = ""

    def feed(self, t_ns: int, data: bytes) -> None:
        """``data`` was received at ``t_ns``. After ``[DONE]`` or a protocol error the rest is ignored."""
        if self.done or self.error:
            return
        try:
            events = self._sse.feed(data)
        except SseOverflow as overflow:
            self.error = str(overflow)
            return
        for event in events:
            self._take(t_ns, event)
            if self.done or self.error:
                return

    def _take(self, t_ns: int, event: Event) -> None:
        self._events += 1
        data = event.data.strip()
        if data == b"[DONE]":
            self.done = True
            return
        if event.name == b"error":
            self.error = "the server reported: " + body_excerpt(data)
            return
        if not data:
            return
        try:
            body = _decode(data)
        except msgspec.ValidationError as error:
            self.error = f"event {self._events} has an unexpected shape: {error}"
            return
        except _NOT_JSON:
            self.error = f"event {self._events} is not JSON: {error_text(data[:80].decode('utf-8', 'replace'))}"
            return
        if body.error or body.object == "error":
            self.error = "the server reported: " + error_text(body.error or body.message)
            return
        self._chunk(t_ns, body)

    def _chunk(self, t_ns: int, body: _Body) -> None:
        running = self._usage(body.usage) if body.usage else None
        if not body.choices:
            return
        for choice in body.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
        if not _bears_token(body.choices):
            return
        self.chunk_ns.append(t_ns)
        self._cumulative.append(running)
        self._streak = self._streak + 1 if t_ns == self._last_ns else 1
        self._last_ns = t_ns
        if self._streak > 1:
            self.merged_events += 1 + (self._streak == 2)
        self.max_events_per_read = max(self.max_events_per_read, self._streak)

    def _usage(self, usage: Any) -> int | None:
        if not isinstance(usage, dict):
            self._odd = "usage is no object"
            return None
        prompt, completion = self._count(usage, "prompt_tokens"), self._count(usage, "completion_tokens")
        if prompt is not None:
            self.prompt_tokens = prompt
        if completion is not None:
            self.completion_tokens = completion
        return completion

    def _count(self, usage: dict[str, Any], name: str) -> int | None:
        value = usage.get(name)
        if value is None:
            return None
        if type(value) is int and 0 <= value < _MOST_TOKENS:
            return value
        plain = isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 1 << 64)
        self._odd = f"usage.{name} is {str(value)[:40] if plain else type(value).__name__}, not a count"
        return None

    def note(self, asked: int | None = None) -> str:
        """What is wrong with the server's ``usage``; ``""`` when nothing is known to be. ``asked``: max_tokens."""
        return self._impossible(asked) or self._odd

    def _impossible(self, asked: int | None) -> str:
        """Why its total cannot be true; ``""`` when it can."""
        total, chunks = self.completion_tokens, len(self.chunk_ns)
        if total is not None and asked is not None and total > asked:
            return f"usage says {total} tokens, at most {asked} were asked for"
        if total is not None and total < chunks:
            return f"usage says {total} tokens, {chunks} chunks bore one"
        return ""

    def counted(self, asked: int | None = None) -> Counted:
        """Tokens per chunk. A total that cannot be true is not believed: each chunk counts as one token."""
        if self._impossible(asked):
            return Counted([1] * len(self.chunk_ns), "chunks")
        return count_tokens(self._cumulative, self.completion_tokens)

    def verdict(self, ended: bool, lost: str, wanted: int | None = None) -> tuple[Status, str]:
        """``ok`` or ``error`` with its text, for a 200 event stream.

        ``ended``: the body ended as HTTP says it should; ``lost``: what happened to the connection if not.
        ``[DONE]`` ends a stream; where it is missing, a finish reason does, or a clean end after tokens.
        ``wanted``: tokens that had to come (``ignore_eos``): a stream that just ends before them broke off.
        """
        got = len(self.chunk_ns)
        if self.error:
            return "error", self.error
        if self.finish_reason in _BROKEN_FINISH:
            return "error", f"the server ended the request with finish_reason '{self.finish_reason}'"
        if not (self.done or ended or (self.finish_reason and got)):
            return "error", f"{lost or 'the stream broke off'} after {got} chunks"
        if got == 0:
            return "error", "the stream ended without a token"
        if wanted is not None and not self.done and not self.finish_reason:
            seen = sum(self.counted().tokens)
            if seen < wanted:
                return "error", f"the stream ended after {seen} of {wanted} tokens without a finish reason"
        return "ok", ""
