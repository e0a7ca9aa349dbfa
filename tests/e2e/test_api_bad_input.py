"""Whatever a client sends, pdserve answers with a 4xx in OpenAI's error shape, and serves the next one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.client import until
from tests.e2e.fake_service import FakeService, Live, live

pytestmark = pytest.mark.e2e

LONG = [{"role": "user", "content": "w " * 64}]
BAD_BOTH: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "gpt-9"}, 404, "model", "model_not_found"),
    ({"model": 3}, 400, "model", None),
    ({"max_tokens": 0}, 400, "max_tokens", None),
    ({"max_tokens": -1}, 400, "max_tokens", None),
    ({"max_tokens": "9"}, 400, "max_tokens", None),
    ({"max_tokens": 1.5}, 400, "max_tokens", None),
    ({"max_tokens": True}, 400, "max_tokens", None),
    ({"max_tokens": 10**300}, 400, "max_tokens", None),
    ({"max_completion_tokens": 0}, 400, "max_completion_tokens", None),
    ({"min_tokens": -1}, 400, "min_tokens", None),
    ({"min_tokens": 9, "max_tokens": 8}, 400, "min_tokens", None),
    ({"temperature": -0.1}, 400, "temperature", None),
    ({"temperature": 2.1}, 400, "temperature", None),
    ({"temperature": "hot"}, 400, "temperature", None),
    ({"temperature": True}, 400, "temperature", None),
    ({"seed": 2**63}, 400, "seed", None),
    ({"seed": "x"}, 400, "seed", None),
    ({"ignore_eos": 1}, 400, "ignore_eos", None),
    ({"stream": "yes"}, 400, "stream", None),
    ({"stream_options": {}}, 400, "stream_options", None),
    ({"stream": True, "stream_options": []}, 400, "stream_options", None),
    ({"stream": True, "stream_options": {"include_usage": 1}}, 400, "stream_options.include_usage", None),
    ({"stop": ["a"] * 5}, 400, "stop", None),
    ({"stop": ""}, 400, "stop", None),
    ({"stop": [1]}, 400, "stop", None),
    ({"stop": {"a": 1}}, 400, "stop", None),
    ({"stop": "x" * 1001}, 400, "stop", None),
    ({"n": 2}, 400, "n", "unsupported_parameter"),
    ({"top_p": 0.9}, 400, "top_p", "unsupported_parameter"),
    ({"top_k": 50}, 400, "top_k", "unsupported_parameter"),
    ({"presence_penalty": 1}, 400, "presence_penalty", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias", "unsupported_parameter"),
]
BAD_COMPLETION: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"prompt": None}, 400, "prompt", None),
    ({"prompt": ""}, 400, "prompt", None),
    ({"prompt": []}, 400, "prompt", None),
    ({"prompt": [[]]}, 400, "prompt", None),
    ({"prompt": 5}, 400, "prompt", None),
    ({"prompt": ["a", "b"]}, 400, "prompt", None),
    ({"prompt": [[1], [2]]}, 400, "prompt", None),
    ({"prompt": [1, "a"]}, 400, "prompt", None),
    ({"prompt": [1.5]}, 400, "prompt", None),
    ({"prompt": [True]}, 400, "prompt", None),
    ({"prompt": [["a"]]}, 400, "prompt", None),
    ({"prompt": [100]}, 400, "prompt", None),
    ({"prompt": [-1]}, 400, "prompt", None),
    ({"prompt": [10**40]}, 400, "prompt", None),
    ({"prompt": "w " * 64}, 400, "prompt", "context_length_exceeded"),
    ({"max_tokens": 63}, 400, "prompt", "context_length_exceeded"),
    ({"max_tokens": 2**62}, 400, "prompt", "context_length_exceeded"),
    ({"logprobs": 0}, 400, "logprobs", "unsupported_parameter"),
    ({"echo": True}, 400, "echo", "unsupported_parameter"),
    ({"best_of": 3}, 400, "best_of", "unsupported_parameter"),
    ({"suffix": "end"}, 400, "suffix", "unsupported_parameter"),
]
BAD_CHAT: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"messages": None}, 400, "messages", None),
    ({"messages": []}, 400, "messages", None),
    ({"messages": "hi"}, 400, "messages", None),
    ({"messages": ["hi"]}, 400, "messages[0]", None),
    ({"messages": [{"content": "hi"}]}, 400, "messages[0].role", None),
    ({"messages": [{"role": "tool", "content": "hi"}]}, 400, "messages[0].role", None),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", None),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content", None),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0].content", None),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages", None),
    ({"messages": LONG}, 400, "messages", "context_length_exceeded"),
    ({"max_completion_tokens": 63}, 400, "messages", "context_length_exceeded"),
    ({"logprobs": True}, 400, "logprobs", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
    ({"tool_choice": "required"}, 400, "tool_choice", "unsupported_parameter"),
]
COMPLETION = ("/v1/completions", {"model": "fake", "prompt": "one two"})
CHAT = ("/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": "hi"}]})


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    with live(FakeService()) as running:
        yield running


@pytest.mark.parametrize(
    ("endpoint", "case"),
    [(COMPLETION, case) for case in BAD_BOTH + BAD_COMPLETION] + [(CHAT, case) for case in BAD_BOTH + BAD_CHAT],
    ids=lambda value: json.dumps(value[0])[:60],
)
def test_bad_fields(
    shared: Live, endpoint: tuple[str, dict[str, Any]], case: tuple[dict[str, Any], int, str, str | None]
) -> None:
    fields, status, param, code = case
    path, good = endpoint
    reply = shared.post(path, good | fields)
    error = reply.json["error"]
    assert (reply.status, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_a_prompt_too_long_names_the_numbers(shared: Live) -> None:
    message = shared.complete([1] * 40, max_tokens=30).json["error"]["message"]
    assert all(number in message for number in ("64", "70", "40", "30"))


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"[1]", {}, 400),
        (b"null", {}, 400),
        (b'{"prompt": NaN}', {}, 400),
        (b'{"prompt": "\xff"}', {}, 400),
        (b'{"prompt": "\\ud800"}', {}, 400),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", {}, 400),
        (b'{"temperature": ' + b"9" * 4300 + b"}", {}, 400),
        (b'{"a":' * 50_000, {}, 400),
        (b'{"x":' * 900 + b"1" + b"}" * 900, {}, 400),
        (b'{"prompt": "a"}', {"Content-Type": "text/plain"}, 415),
        (b"prompt=a", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"prompt": "a"}', {"Content-Type": "application/json; charset=utf-16"}, 415),
        (b'{"prompt": "a"}', {"Content-Type": "application/json; charset=utf-8"}, 200),
        (b"not gzip", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b'{"prompt": "a"}'), {"Content-Encoding": "gzip"}, 200),
        (gzip.compress(b" " * 2_000_000), {"Content-Encoding": "gzip"}, 413),
        (b'{"prompt": "' + b"a" * 1_100_000 + b'"}', {}, 413),
        (b'{"prompt": "' + b"a " * 100_000 + b'"}', {}, 400),
    ],
    ids=range(20),
)
def test_bad_bodies(shared: Live, raw: bytes, headers: dict[str, str], status: int) -> None:
    reply = shared.post("/v1/completions", raw, headers)
    assert reply.status == status
    if status != 200:
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("GET", "/v1/completions", 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET,HEAD"),
        ("GET", "/admin/clear", 405, "POST"),
    ],
)
def test_unknown_paths_and_methods(shared: Live, method: str, path: str, status: int, allow: str | None) -> None:
    reply = shared.get(path, method)
    assert (reply.status, reply.headers.get("allow")) == (status, allow)
    assert reply.json["error"]["type"] == "invalid_request_error"


NAMES = sorted({name for case in BAD_BOTH + BAD_COMPLETION + BAD_CHAT for name in case[0]})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NEAR: st.SearchStrategy[Any] = (
    st.integers(-2, 70) | st.floats(-1, 3) | st.sampled_from([0, 1, True, False, None, "", "w1", "a", [], {}])
)
BODIES = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), NEAR | JSON, max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(endpoint=st.sampled_from([COMPLETION, CHAT]), fields=BODIES | JSON, near=st.booleans())
def test_no_body_makes_the_server_fail(
    shared: Live, endpoint: tuple[str, dict[str, Any]], fields: Any, near: bool
) -> None:
    path, good = endpoint
    body = good | fields if near and isinstance(fields, dict) else fields
    reply = shared.post(path, body)
    assert reply.status in (200, 400, 404), reply.raw
    if reply.status != 200:
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    until(lambda: shared.service.idle)


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_no_bytes_make_the_server_fail(shared: Live, raw: bytes) -> None:
    assert shared.post("/v1/chat/completions", raw).status == 400
