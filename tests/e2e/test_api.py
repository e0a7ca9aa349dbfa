"""pdserve's HTTP face over real sockets, before a service that answers by script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pdserve import api
from pdserve.service import GenerateRequest, Output, Unavailable
from tests.e2e.client import sample, until
from tests.e2e.fake_service import EOS, FakeService, Live, live, tokens

pytestmark = pytest.mark.e2e


@pytest.fixture
def server() -> Iterator[Live]:
    with live(FakeService()) as running:
        yield running


def text_of(events: list[Any]) -> str:
    return "".join(e["choices"][0]["text"] for e in events if e != "[DONE]" and e["choices"])


# --- what a good request sees ---------------------------------------------------------------------


def test_a_completion_streams_one_event_per_token(server: Live) -> None:
    reply = server.complete("a b c", max_tokens=3, stream=True)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    shown = re.sub(r'"created":\d+', '"created":0', reply.raw.decode())
    head = f'data: {{"id":"cmpl-{reply.headers["x-request-id"]}","object":"text_completion","created":0,'
    head += '"model":"fake","choices":[{"index":0,"text":'
    assert shown == (
        f'{head}"w0 ","logprobs":null,"finish_reason":null}}]}}\n\n'
        f'{head}"w1 ","logprobs":null,"finish_reason":null}}]}}\n\n'
        f'{head}"w2 ","logprobs":null,"finish_reason":"length"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_a_chat_stream_opens_with_the_role_and_closes_with_the_usage(server: Live) -> None:
    events = server.chat(max_tokens=2, stream=True, stream_options={"include_usage": True}).events
    assert [e["choices"] for e in events[:-1]] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "w0 "}, "logprobs": None, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "w1 "}, "logprobs": None, "finish_reason": "length"}],
        [],
    ]
    assert [e["usage"] for e in events[:-1]] == [
        None,
        None,
        None,
        {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    ]
    assert {e["object"] for e in events[:-1]} == {"chat.completion.chunk"}
    assert events[-1] == "[DONE]"


def test_continuous_usage_counts_the_tokens_of_every_chunk(server: Live) -> None:
    """A chunk may carry several tokens (text held back for a stop string); its usage says how many."""
    server.service.script = tokens(1, 2, 3, 4)
    server.service.pieces |= {1: "one", 2: "<", 3: "st", 4: "ep"}
    events = server.complete(stop="<stop>", stream=True, stream_options={"continuous_usage_stats": True}).events
    chunks = [(e["choices"][0]["text"], e["usage"]["completion_tokens"]) for e in events[:-1]]
    assert chunks == [("one", 1), ("<step", 4)]
    assert events[0]["usage"] == {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}


def test_the_whole_answer_without_streaming(server: Live) -> None:
    body = server.complete([5, 6, 7], max_tokens=2).json
    assert body.pop("created") > 1_700_000_000
    assert body.pop("id").startswith("cmpl-")
    assert body == {
        "object": "text_completion",
        "model": "fake",
        "choices": [{"index": 0, "text": "w0 w1 ", "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    chat = server.chat([{"type": "text", "text": "hi "}, {"type": "text", "text": "you"}], max_tokens=1).json
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": "w0 "}
    assert chat["usage"]["prompt_tokens"] == 3
    assert server.service.submitted[0].tokens == (5, 6, 7)


def test_defaults_and_fields_reach_the_engine(server: Live) -> None:
    server.complete()
    server.chat()
    server.complete(
        ["one"], model="fake", max_tokens=9, min_tokens=2, ignore_eos=True, temperature=0, seed=-3, user="u"
    )
    plain, chat, full = server.service.submitted
    assert (plain.max_new, plain.min_new, plain.eos, plain.sampling.temperature) == (16, 0, frozenset({EOS}), 1.0)
    assert chat.max_new == server.service.max_len - len(chat.tokens)
    assert (full.max_new, full.min_new, full.eos) == (9, 2, frozenset())
    assert (full.sampling.temperature, full.sampling.seed) == (0.0, -3)
    assert 0 < plain.arrive_ns < chat.arrive_ns < full.arrive_ns


def test_a_default_limit_yields_to_the_context(server: Live) -> None:
    assert server.complete([1] * 60).json["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_request_and_is_never_shown(server: Live, stream: bool) -> None:
    server.service.pieces |= {2: "a<s", 3: "to", 4: "p>b"}
    reply = server.complete(max_tokens=50, stop=["<stop>", "zzz"], stream=stream)
    choices = reply.events[:-1] if stream else [reply.json]
    assert text_of(choices) == "w0 w1 a"
    assert choices[-1]["choices"][0]["finish_reason"] == "stop"
    if not stream:
        assert reply.json["usage"]["completion_tokens"] == 5
    until(lambda: server.service.idle)


def test_an_end_token_is_counted_and_not_shown(server: Live) -> None:
    server.service.script = tokens(3, EOS, finish="stop")
    body = server.complete().json
    assert body["choices"][0] == {"index": 0, "text": "w3 ", "logprobs": None, "finish_reason": "stop"}
    assert body["usage"]["completion_tokens"] == 2


def test_headers_come_before_the_first_token_and_each_token_before_the_next(server: Live) -> None:
    gates = [asyncio.Event() for _ in range(3)]

    def script(_: GenerateRequest) -> Iterator[Output | asyncio.Event]:
        for index, gate in enumerate(gates):
            yield gate
            yield Output(index, "length" if index == 2 else None)

    server.service.script = script
    with server.open("/v1/completions", {"prompt": "a", "stream": True}) as response:
        assert response.status == 200
        for index, gate in enumerate(gates):
            server.release(gate)
            event = json.loads(response.readline()[6:])
            assert event["choices"][0]["text"] == f"w{index} "
            assert response.readline() == b"\n"
        assert response.read() == b"data: [DONE]\n\n"


def test_http_1_0_clients_get_the_stream_too(server: Live) -> None:
    raw = b'{"prompt": "a", "max_tokens": 2, "stream": true}'
    with server.connect() as link:
        link.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
        answer = b"".join(iter(lambda: link.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.0 200")
    assert answer.count(b"data: ") == 3


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("run-7", "run-7"),
        ('a b"c<d>', "abcd"),
        ("x" * 500, "x" * 128),
        ("::", "::"),
        ("\t?!", None),
        ("", None),
    ],
)
def test_the_clients_request_id_is_kept_clean(server: Live, sent: str, seen: str | None) -> None:
    reply = server.post("/v1/completions", {"prompt": "a"}, {"X-Request-Id": sent})
    expected = seen or server.service.submitted[0].id
    assert reply.headers["x-request-id"] == server.service.submitted[0].id == expected
    assert re.fullmatch(r"[A-Za-z0-9._:/+=@-]{1,128}", expected)


def test_a_live_id_is_not_given_twice(server: Live) -> None:
    gate = asyncio.Event()
    server.service.script = lambda _: [gate, Output(1, "length")]
    body, headers = {"prompt": "a", "stream": True}, {"X-Request-Id": "r"}
    with server.open("/v1/completions", body, headers), server.open("/v1/completions", body, headers) as twin:
        assert twin.getheader("X-Request-Id") == "r-2"
        server.release(gate)
        until(lambda: server.service.idle)
    assert server.post("/v1/completions", {"prompt": "a"}, headers).headers["x-request-id"] == "r"


# --- a service at fault ---------------------------------------------------------------------------


def test_unavailable_is_503_with_retry_after(server: Live) -> None:
    server.service.refusal = Unavailable("no live decode worker")
    reply = server.complete(stream=True)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.json["error"]["message"] == "no live decode worker"


FAULTS = [
    ([Output(1), Output(None, "error", "decode worker 1 died")], "decode worker 1 died"),
    ([Output(1)], "The engine ended the answer without a reason."),
    ([Output(1), RuntimeError("secret detail")], "The engine failed while answering."),
    ([Output(1), Unavailable("draining")], "draining"),
]


@pytest.mark.parametrize(("script", "message"), FAULTS)
def test_a_fault_after_tokens_is_an_error_event_and_no_done(server: Live, script: list[Any], message: str) -> None:
    server.service.script = lambda _: script
    events = server.complete(stream=True).events
    assert text_of(events[:-1]) == "w1 "
    assert events[-1] == {"error": {"message": message, "type": "server_error", "param": None, "code": "engine_error"}}
    until(lambda: server.service.idle)


@pytest.mark.parametrize(("script", "message"), FAULTS)
def test_a_fault_in_a_plain_answer_is_502(server: Live, script: list[Any], message: str) -> None:
    server.service.script = lambda _: script
    reply = server.complete()
    assert (reply.status, reply.json["error"]["message"]) == (502, message)
    until(lambda: server.service.idle)


# --- the other doors ------------------------------------------------------------------------------


def test_models_health_and_readiness(server: Live) -> None:
    (model,) = server.get("/v1/models").json["data"]
    assert {key: model[key] for key in ("id", "object", "owned_by", "max_model_len")} == {
        "id": "fake",
        "object": "model",
        "owned_by": "pdserve",
        "max_model_len": 64,
    }
    assert server.get("/health").status == 200
    assert (server.get("/ready").status, server.get("/ready").json) == (200, {"ready": True, "reason": ""})
    server.service.not_ready = "decode worker 1 is starting"
    assert server.get("/health").status == 200
    reply = server.get("/ready")
    assert (reply.status, reply.json["reason"]) == (503, "decode worker 1 is starting")


def test_admin(server: Live) -> None:
    server.service.records = [{"request_id": "r", "arrive_ns": 1}]
    assert server.get("/admin/state").json == server.service.state()
    assert server.get("/admin/requests").json == {"requests": server.service.records}
    assert server.get("/admin/steps").json == {"steps": server.service.steps()}
    assert server.post("/admin/clear", {}).status == 200
    assert server.post("/admin/probe", {}).json == {"probes": [{"worker": 0, "device": "cpu:0", "gemm_ms": 1.5}]}
    assert server.service.cleared == 1


def test_admin_is_closed_to_other_machines(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "is_loopback", lambda host: False)
    for path in ("/admin/state", "/admin/requests", "/admin/steps"):
        assert server.get(path).status == 403
    assert server.post("/admin/clear", {}).status == 403
    assert server.service.cleared == 0
    assert server.get("/health").status == 200


def test_metrics_count_what_happened(server: Live) -> None:
    s = 10**9
    server.service.records = [
        {"arrive_ns": 0, "prefill_start_ns": s, "prefill_end_ns": 3 * s, "end_ns": 4 * s},
        {"arrive_ns": 0, "prefill_start_ns": None, "prefill_end_ns": None, "end_ns": 5 * s},
    ]
    server.complete("a b c", max_tokens=4, stream=True)
    server.complete("a", max_tokens=1)
    server.service.script = lambda _: [Output(1), Output(None, "error", "died")]
    server.complete("a")
    page = server.get("/metrics").raw.decode()
    page = server.get("/metrics").raw.decode()  # a second scrape counts no lifecycle twice
    expected = {
        ("pdserve:prompt_tokens_total",): 5,
        ("pdserve:generation_tokens_total",): 6,
        ("pdserve:request_success_total", 'finished_reason="length"'): 2,
        ("pdserve:request_success_total", 'finished_reason="error"'): 1,
        ("pdserve:time_to_first_token_seconds_count",): 3,
        ("pdserve:inter_token_latency_seconds_count",): 3,
        ("pdserve:request_time_per_output_token_seconds_count",): 1,
        ("pdserve:e2e_request_latency_seconds_count",): 2,
        ("pdserve:request_prefill_time_seconds_sum",): 2.0,
        ("pdserve:request_prefill_time_seconds_count",): 1,
        ("pdserve:request_queue_time_seconds_sum",): 1.0,
        ("pdserve:num_requests_running",): 2,
        ("pdserve:num_requests_waiting",): 7,
        ("pdserve:kv_cache_usage_perc",): 0.25,
        ("pdserve:role_decode_steps_total", 'role="prefill"'): 3,
        ("pdserve:role_busy_seconds_total", 'role="prefill"'): 6.0,
        ("pdserve:kv_transfers_total",): 7,
        ("pdserve:kv_transfer_bytes_total",): 28672,
    }
    assert {key: sample(page, *key) for key in expected} == expected
