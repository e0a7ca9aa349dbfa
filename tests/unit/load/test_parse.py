"""What counts as a token, how tokens are counted, and when a stream is complete: one table each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdbench.load.parse import AnswerReader, body_excerpt, count_tokens


def stream(*payloads: dict[str, Any] | str) -> AnswerReader:
    reader = AnswerReader()
    for t, payload in enumerate(payloads):
        text = payload if isinstance(payload, str) else json.dumps(payload)
        reader.feed(1000 + t, f"data: {text}\n\n".encode())
    return reader


def text(value: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": value, "finish_reason": more.pop("finish", None)}], **more}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("payload", "bears"),
    [
        (text(" a"), True),
        (text(" "), True),
        (text(""), False),
        (text(None), False),
        (delta(content="a"), True),
        (delta(role="assistant"), False),
        (delta(role="assistant", content=None), False),
        (delta(role="assistant", content=""), False),
        (delta(role="assistant", content="a"), True),
        (delta(reasoning_content="hm"), True),
        (delta(reasoning="hm", content=None), True),
        (delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]), True),
        (delta(tool_calls=[]), False),
        (delta(refusal="no"), False),
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, False),
        ({"choices": None}, False),
        ({"object": "ping"}, False),
        ({"choices": [{"text": ""}, {"text": "b"}]}, True),
    ],
)
def test_what_bears_a_token(payload: dict[str, Any], bears: bool) -> None:
    reader = stream(payload)
    assert reader.chunk_ns == ([1000] if bears else [])
    assert reader.error == ""


@pytest.mark.parametrize(
    ("cumulative", "total", "tokens", "source"),
    [
        ([1, 2, 3], 3, [1, 1, 1], "continuous_usage"),
        ([2, 5], 5, [2, 3], "continuous_usage"),
        ([1, 1, 2], 2, [1, 0, 1], "continuous_usage"),
        ([None, None, 3], 3, [1, 1, 1], "usage_over_chunks"),  # usage in the last chunk
        ([None, None], 4, [2, 2], "usage_over_chunks"),
        ([None] * 4, 5, [1, 1, 1, 2], "usage_over_chunks"),  # an end token without text falls last
        ([3, 2, 4], 4, [1, 1, 2], "usage_over_chunks"),  # falling: not a running count
        ([7], 7, [7], "usage_over_chunks"),
        ([None, None], None, [1, 1], "chunks"),
        ([], 5, [], "chunks"),
    ],
)
def test_how_tokens_are_counted(
    cumulative: list[int | None], total: int | None, tokens: list[int], source: str
) -> None:
    assert count_tokens(cumulative, total) == (tokens, source)


@given(chunks=st.integers(1, 200), total=st.integers(0, 1000))
def test_spread_tokens_add_up_and_are_even(chunks: int, total: int) -> None:
    counts = count_tokens([None] * chunks, total).tokens
    assert sum(counts) == total
    assert max(counts) - min(counts) <= 1


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}


@pytest.mark.parametrize(
    ("payloads", "ended", "lost", "wanted", "status", "says"),
    [
        ([text("a"), text("b", finish="length"), USAGE, "[DONE]"], True, "", 2, "ok", ""),
        ([text("a"), text("b", finish="length")], True, "", 2, "ok", ""),
        ([text("a"), text("b", finish="length")], False, "reset", 2, "ok", ""),
        ([text("a"), text("b")], True, "", 2, "ok", ""),
        ([text("a"), "[DONE]"], False, "reset", 2, "ok", ""),
        ([text("a")], True, "", None, "ok", ""),
        ([text("a")], True, "", 2, "error", "after 1 of 2 tokens"),
        ([text("a")], False, "connection reset", 2, "error", "connection reset after 1 chunks"),
        ([], False, "closed", 2, "error", "closed after 0 chunks"),
        (["[DONE]"], True, "", 2, "error", "without a token"),
        ([USAGE, "[DONE]"], True, "", 2, "error", "without a token"),
        ([text("a"), {"error": {"message": "out of\nmemory"}}], True, "", 2, "error", "out of memory"),
        ([text("a"), {"error": "boom"}, "[DONE]"], True, "", 2, "error", "boom"),
        ([{"object": "error", "message": "too long"}], True, "", 2, "error", "too long"),
        ([text("a"), text("", finish="error")], True, "", 2, "error", "finish_reason 'error'"),
        ([text("a"), text("", finish="abort"), "[DONE]"], True, "", 2, "error", "finish_reason 'abort'"),
        ([text("a"), "{broken"], True, "", 2, "error", "event 2 is not JSON"),
        ([{"choices": 3}], True, "", 2, "error", "unexpected shape"),
        (["[1, 2]"], True, "", 2, "error", "unexpected shape"),
    ],
)
def test_when_a_stream_is_complete(
    payloads: list[dict[str, Any] | str], ended: bool, lost: str, wanted: int | None, status: str, says: str
) -> None:
    got, error = stream(*payloads).verdict(ended, lost, wanted)
    assert got == status
    assert says in error
    assert bool(error) == (status != "ok")


@pytest.mark.parametrize(
    ("usage", "tokens", "source", "says"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2}, [1, 1], "usage_over_chunks", ""),
        ({"prompt_tokens": 9, "completion_tokens": 4}, [2, 2], "usage_over_chunks", ""),
        ({"completion_tokens": 5}, [1, 1], "chunks", "usage says 5 tokens, at most 4 were asked for"),
        ({"completion_tokens": 1}, [1, 1], "chunks", "usage says 1 tokens, 2 chunks bore one"),
        ({"completion_tokens": 0}, [1, 1], "chunks", "usage says 0 tokens"),
        ({"completion_tokens": -3}, [1, 1], "chunks", "usage.completion_tokens is -3, not a count"),
        ({"completion_tokens": 10**30}, [1, 1], "chunks", "is int, not a count"),
        ({"completion_tokens": 2.5}, [1, 1], "chunks", "is 2.5, not a count"),
        ({"completion_tokens": True}, [1, 1], "chunks", "is True, not a count"),
        ({"completion_tokens": "many"}, [1, 1], "chunks", "is many, not a count"),
        ({"completion_tokens": [[2]]}, [1, 1], "chunks", "is list, not a count"),
        ({"completion_tokens": None}, [1, 1], "chunks", ""),
        ("2 tokens", [1, 1], "chunks", "usage is no object"),
        ([2], [1, 1], "chunks", "usage is no object"),
        ({}, [1, 1], "chunks", ""),
        (None, [1, 1], "chunks", ""),
    ],
)
def test_a_usage_that_cannot_be_true_is_noted_and_not_believed(
    usage: Any, tokens: list[int], source: str, says: str
) -> None:
    reader = stream(text("a"), text("b"), {"choices": [], "usage": usage}, "[DONE]")
    assert reader.verdict(True, "", 2) == ("ok", "")
    assert reader.counted(4) == (tokens, source)
    assert says in reader.note(4)
    assert bool(says) == bool(reader.note(4))


@pytest.mark.parametrize("payload", ["[" * 100_000, '{"error":' + "[" * 5000 + "]" * 5000 + "}", "9" * 5000])
def test_json_beyond_the_interpreter_is_an_error(payload: str) -> None:
    assert stream(text("a"), payload).verdict(True, "", 1)[0] == "error"
    assert body_excerpt(payload.encode())


def test_usage_is_taken_wherever_it_comes() -> None:
    own = stream(text("a"), text("b"), USAGE, "[DONE]")
    last = stream(text("a"), text("b", usage=USAGE["usage"]), "[DONE]")
    for reader in (own, last):
        assert (reader.prompt_tokens, reader.completion_tokens) == (9, 2)
        assert reader.counted() == ([1, 1], "usage_over_chunks")


def test_tokens_without_text_are_counted_with_the_next_text() -> None:
    """A detokenizer that holds back half a character emits an empty chunk whose usage went up."""
    steps = [("a", 1), ("", 2), ("é", 3)]
    reader = stream(*[text(t, usage={"prompt_tokens": 1, "completion_tokens": n}) for t, n in steps], "[DONE]")
    assert reader.chunk_ns == [1000, 1002]
    assert reader.counted() == ([1, 2], "continuous_usage")


def test_events_of_one_read_share_its_stamp_and_are_counted() -> None:
    reader = AnswerReader()
    one = b'data: {"choices":[{"text":"a"}]}\n\n'
    reader.feed(5, one)
    reader.feed(6, one * 3)
    assert reader.chunk_ns == [5, 6, 6, 6]
    assert reader.max_events_per_read == 3
    assert reader.merged_events == 3


def test_nothing_counts_after_done() -> None:
    reader = stream(text("a"), "[DONE]", text("b"), "{broken")
    assert reader.chunk_ns == [1000]
    assert reader.verdict(True, "", 1) == ("ok", "")


def test_an_oversized_event_is_an_error_not_memory() -> None:
    reader = AnswerReader(max_event_bytes=1000)
    for _ in range(100):
        reader.feed(1, b"data: " + b"x" * 100)
    assert "larger than 1000 bytes" in reader.verdict(False, "", 1)[1]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error":{"message":"queue is full"}}', "queue is full"),
        (b'{"detail":"draining"}', "draining"),
        (b'{"error":"boom"}', "boom"),
        (b"<html>Bad\n gateway</html>", "<html>Bad gateway</html>"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", ""),
    ],
)
def test_what_an_error_answer_says(body: bytes, says: str) -> None:
    assert body_excerpt(body) == says
    assert len(body_excerpt(b"x" * 10_000)) == 300
