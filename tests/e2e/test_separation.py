"""Separation is real, and it changes nothing: counters prove where work ran, tokens prove what came out."""

from __future__ import annotations

import random
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
        {"role": "decode", "device": 1, "max_batch": 8},
    ],
}


def backend(layout: str) -> dict[str, Any]:
    return {"name": layout, "engine": "pdserve", "model": MODEL, "workers": LAYOUTS[layout]}


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


def test_tokens_are_the_same_colocated_and_disaggregated() -> None:
    """fp32, one request at a time: the same batches run, so the same tokens must come out, sampled ones too."""
    answers: dict[str, list[str]] = {}
    for layout in ("colocated", "disaggregated"):
        with serving(backend(layout)) as server:
            greedy = [answer(server, prompt) for prompt in prompts()]
            drawn = [answer(server, prompt, temperature=0.8, seed=11) for prompt in prompts()]
            answers[layout] = greedy + drawn
            assert greedy != drawn
    assert answers["colocated"] == answers["disaggregated"]


def test_counters_prove_that_prefill_and_decode_ran_apart() -> None:
    with serving(backend("disaggregated")) as server:
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
        for row in server.lifecycles():
            assert row["arrive_ns"] <= row["prefill_start_ns"] < row["prefill_end_ns"] == row["token_ns"][0]
            assert row["prefill_end_ns"] <= row["transfer_start_ns"] < row["transfer_end_ns"]
            assert row["transfer_end_ns"] <= row["decode_admit_ns"] < row["token_ns"][1]
            assert row["kv_bytes"] == row["prompt_tokens"] * KV_BYTES


def test_chunked_prefill_never_exceeds_its_budget() -> None:
    with serving(backend("chunked")) as server:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda prompt: answer(server, prompt), prompts()))
        steps = server.steps()
        assert max(step["prefill_tokens"] + step["decode_tokens"] for step in steps) <= 32
        assert any(step["prefill_tokens"] and step["decode_tokens"] for step in steps), "chunks and decodes mix"
        assert sum(step["prefill_tokens"] for step in steps) == sum(len(prompt) for prompt in prompts())
