"""The real engine behind its HTTP face: real tokens, real slots, and separation that is real and changes nothing.

Counters prove where work ran, tokens prove what came out. The disaggregated server is started once for all tests here.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.client import until
from tests.e2e.serving import Serving, serving

pytestmark = pytest.mark.e2e

MODEL = {"preset": "llama-10m", "dtype": "float32", "seed": 0}
KV_BYTES = 6 * 2 * 2 * 64 * 4  # layers, key and value, KV heads, head size, float32
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "colocated": [{"role": "mixed", "device": 0, "max_batch": 8}, {"role": "mixed", "device": 1, "max_batch": 8}],
    "chunked": [{"role": "mixed", "policy": "chunked", "token_budget": 32, "device": 0, "max_batch": 8}],
    "disaggregated": [
        {"role": "prefill", "device": 0, "max_batch": 8},
        {"role": "decode", "device": 1, "max_batch": 4},
    ],
}
FOREVER = {"prompt": "a b c", "max_tokens": 4000, "ignore_eos": True, "stream": True}


def backend(layout: str) -> dict[str, Any]:
    return {"name": layout, "engine": "pdserve", "model": MODEL, "workers": LAYOUTS[layout]}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    """Left with a stream open: leaving ``serving`` checks that the lifeline ends it under load, workers and all."""
    with serving(backend("disaggregated")) as running:
        yield running
        link = running.send(FOREVER)
        until(lambda: slots_used(running)[1] == 1)
    link.close()


def slots_used(server: Serving) -> list[int]:
    return [worker["slots_used"] for worker in server.state()["workers"]]


def prompts() -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(8192) for _ in range(length)] for length in (1, 2, 17, 64, 200, 333)]


def answer(server: Serving, prompt: list[int], **keys: Any) -> str:
    body = {"prompt": prompt, "max_tokens": 24, "ignore_eos": True, "temperature": 0, **keys}
    reply = server.post("/v1/completions", body)
    assert reply.status == 200, reply.raw
    text: str = reply.json["choices"][0]["text"]
    assert len(text.split()) == body["max_tokens"]
    return text


# --- separation -----------------------------------------------------------------------------------


def test_counters_prove_that_prefill_and_decode_ran_apart(server: Serving) -> None:
    """First on the fresh server: many at once right after it said that it is ready."""
    until(lambda: server.state()["live"] == 0)
    server.clear()
    work = prompts() * 3  # more at once than the decode worker has slots
    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(lambda prompt: answer(server, prompt), work))
    until(lambda: server.state()["live"] == 0)
    state = server.state()
    prefill, decode = state["roles"]["prefill"], state["roles"]["decode"]
    tokens = sum(len(prompt) for prompt in work)
    assert (prefill["decode_steps"], prefill["decode_tokens"]) == (0, 0)
    assert (decode["prefill_tokens"], prefill["prefill_tokens"]) == (0, tokens)
    assert decode["decode_tokens"] == 23 * len(work)
    done = {"count": len(work), "bytes": tokens * KV_BYTES, "released": len(work), "failed": 0}
    assert state["transfers"] == done
    until(lambda: [w["slots_used"] for w in server.state()["workers"]] == [0, 0])
    assert len(server.lifecycles()) == len(work)
    for row in server.lifecycles():
        assert row["arrive_ns"] <= row["prefill_start_ns"] < row["prefill_end_ns"] == row["token_ns"][0]
        assert row["prefill_end_ns"] <= row["transfer_start_ns"] < row["transfer_end_ns"]
        assert row["transfer_end_ns"] <= row["decode_admit_ns"] < row["token_ns"][1]
        assert row["kv_bytes"] == row["prompt_tokens"] * KV_BYTES


def test_tokens_are_the_same_colocated_and_disaggregated(server: Serving) -> None:
    """fp32, one request at a time: the same batches run, so the same tokens must come out, sampled ones too."""
    until(lambda: server.state()["live"] == 0)
    with serving(backend("colocated")) as colocated:
        answers = {}
        for name, one in (("colocated", colocated), ("disaggregated", server)):
            greedy = [answer(one, prompt) for prompt in prompts()]
            drawn = [answer(one, prompt, temperature=0.8, seed=11) for prompt in prompts()]
            answers[name] = greedy + drawn
            assert greedy != drawn
    assert answers["colocated"] == answers["disaggregated"]


def test_chunked_prefill_never_exceeds_its_budget() -> None:
    with serving(backend("chunked")) as server:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda prompt: answer(server, prompt), prompts()))
        steps = server.steps()
        assert max(step["prefill_tokens"] + step["decode_tokens"] for step in steps) <= 32
        assert any(step["prefill_tokens"] and step["decode_tokens"] for step in steps), "chunks and decodes mix"
        assert sum(step["prefill_tokens"] for step in steps) == sum(len(prompt) for prompt in prompts())


# --- the HTTP face --------------------------------------------------------------------------------


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


def test_a_dead_worker_is_an_error_not_a_silence() -> None:
    with serving(backend("disaggregated")) as server, server.open("/v1/completions", FOREVER) as stream:
        assert json.loads(stream.readline()[6:])["choices"][0]["text"]
        os.kill(server.state()["workers"][1]["pid"], signal.SIGKILL)
        *_, last = stream.read().decode().strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "worker 1 (decode) died"
        until(lambda: server.get("/ready").status == 503)
        assert server.complete().status == 503
        assert server.get("/health").status == 200
