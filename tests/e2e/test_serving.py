"""The HTTP face on the real engine: two worker processes, real tokens, real slots."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client import until
from tests.e2e.serving import Serving, serving

pytestmark = pytest.mark.e2e

DISAGGREGATED: dict[str, Any] = {
    "name": "small",
    "engine": "pdserve",
    "model": {"preset": "llama-10m", "dtype": "float32", "seed": 0},
    "workers": [{"role": "prefill", "device": 0}, {"role": "decode", "device": 1, "max_batch": 4}],
}
FOREVER = {"prompt": "a b c", "max_tokens": 4000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(DISAGGREGATED) as running:
        yield running


def slots_used(server: Serving) -> list[int]:
    return [worker["slots_used"] for worker in server.state()["workers"]]


def test_a_stream_and_its_stamps(server: Serving) -> None:
    server.clear()
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": "one two three", "max_tokens": 8, "temperature": 0, "stream": True}
    reply = server.post("/v1/completions", body | {"stream_options": options}, {"X-Request-Id": "run-7"})
    *chunks, usage, done = reply.events
    assert [c["usage"]["completion_tokens"] for c in chunks] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (usage["usage"]["total_tokens"], done) == (11, "[DONE]")
    text = "".join(c["choices"][0]["text"] for c in chunks)
    assert len(text.split()) == 8
    assert server.complete("one two three", max_tokens=8, temperature=0).json["choices"][0]["text"] == text
    until(lambda: len(server.lifecycles()) == 2)
    stamps = server.lifecycles()[0]
    assert stamps["request_id"] == "run-7"
    assert len(stamps["token_ns"]) == 8
    roles = server.state()["roles"]
    assert (roles["prefill"]["decode_steps"], roles["decode"]["prefill_tokens"]) == (0, 0)


def test_the_probe_times_every_device(server: Serving) -> None:
    probes = server.post("/admin/probe", {}).json["probes"]
    assert [probe["device"] for probe in probes] == ["cpu:0", "cpu:1"]
    assert all(probe[key] > 0 for probe in probes for key in ("gemm_ms", "copy_ms", "transfer_ms"))


def test_clients_that_leave_free_the_slots_on_both_sides(server: Serving) -> None:
    links = [server.send(FOREVER) for _ in range(6)]  # more than the decode worker's four slots
    until(lambda: slots_used(server)[1] == 4)
    for link in links:
        link.close()
    until(lambda: server.state()["live"] == 0 and slots_used(server) == [0, 0])
    assert server.complete(max_tokens=2).status == 200


def test_the_server_ends_under_load_and_a_dead_worker_is_an_error_not_a_silence() -> None:
    """Leaving ``serving`` with a stream open checks that the lifeline ends it, workers and all."""
    with serving(DISAGGREGATED) as server, server.open("/v1/completions", FOREVER) as stream:
        assert json.loads(stream.readline()[6:])["choices"][0]["text"]
        os.kill(server.state()["workers"][1]["pid"], signal.SIGKILL)
        *_, last = stream.read().decode().strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "worker 1 (decode) died"
        until(lambda: server.get("/ready").status == 503)
        assert server.complete().status == 503
        assert server.get("/health").status == 200
    with serving(DISAGGREGATED) as server:
        link = server.send(FOREVER)
        until(lambda: slots_used(server)[1] == 1)
    link.close()
