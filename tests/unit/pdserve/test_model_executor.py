"""Weights, packed linears, the KV slab, sampling and the executor around them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from hypothesis import given
from hypothesis import strategies as st

from pdserve.executors.sampling import sample, uniform
from pdserve.executors.torch_executor import build_executor
from pdserve.model.config import PRESETS, ModelError
from pdserve.model.kv import KVSlab
from pdserve.model.linear import Linear, prepack_works
from pdserve.model.weights import expected_tensors, random_weights
from pdserve.sequence import Chunk, Sampling, Sequence
from tests.unit.pdserve.model_help import TINY, sequence, some_tokens, tiny_executor

PREPACK = prepack_works("cpu", torch.float32)

# --- weights -----------------------------------------------------------------------------------------------


def fingerprint(seed: int) -> str:
    digest = hashlib.sha256()
    for name, tensor in random_weights(TINY, seed, torch.float32).items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def test_weights_are_bit_equal_per_seed_in_every_process_and_thread_count() -> None:
    root = Path(__file__).parents[3]
    code = (
        "import torch; torch.set_num_threads(3);"
        "from tests.unit.pdserve.test_model_executor import fingerprint; print(fingerprint(5))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{root}:{root / 'backends'}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert run.stdout.strip() == fingerprint(5) != fingerprint(6)


def test_weights_are_complete_sane_and_rounded() -> None:
    weights = random_weights(TINY, 0, torch.bfloat16)
    assert {name: tuple(t.shape) for name, t in weights.items()} == expected_tensors(TINY)
    assert sum(t.numel() for t in weights.values()) == TINY.parameters
    assert torch.equal(weights["lm_head.weight"], random_weights(TINY, 0, torch.float32)["lm_head.weight"].bfloat16())
    logits = tiny_executor().run([Chunk(sequence(some_tokens(20), 0), 0, 20)])
    assert logits[0] is not None


# --- linears -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PREPACK, reason="oneDNN prepacking is not available here")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("rows", [0, 1, 7, 130])
def test_packed_and_plain_linears_agree(dtype: torch.dtype, tolerance: float, rows: int) -> None:
    if not prepack_works("cpu", dtype):
        pytest.skip(f"no packed {dtype} here")
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(96, 64, generator=generator).to(dtype)
    x = torch.randn(rows, 64, generator=generator).to(dtype)
    with torch.inference_mode():
        packed = Linear(weight, prepack=True)(x)
        assert packed.shape == (rows, 96)
        torch.testing.assert_close(packed, F.linear(x, weight), rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not PREPACK, reason="oneDNN prepacking is not available here")
def test_packed_and_plain_models_agree() -> None:
    tokens = some_tokens(40)
    chunk = Chunk(sequence(tokens, 0), 0, 40)
    packed, plain = tiny_executor(prepack=True), tiny_executor(prepack=False)
    assert packed.model.head.packed
    assert not plain.model.head.packed
    assert packed.run([chunk]) == plain.run([chunk])
    assert (packed.kv.view(0, 40) - plain.kv.view(0, 40)).abs().max().item() < 1e-5


def test_packing_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not prepack_works("cuda", torch.float32)
    monkeypatch.setenv("PDSERVE_PREPACK", "0")
    assert not prepack_works("cpu", torch.float32)
    assert not Linear(torch.ones(4, 4)).packed


# --- the slab ----------------------------------------------------------------------------------------------


def test_a_slot_copied_elsewhere_continues_bit_equal() -> None:
    """What the transfer connectors rely on: a view is all there is to know about a sequence."""
    tokens = some_tokens(50)
    executor = tiny_executor()
    executor.run([Chunk(sequence(tokens[:49], 1), 0, 49)])
    moved = tiny_executor()
    moved.kv.view(4, 49).copy_(executor.kv.view(1, 49))
    assert moved.kv.view(4, 49).shape == (TINY.layers, 2, TINY.kv_heads, 49, TINY.head_dim)
    here = executor.run([Chunk(sequence(tokens, 1), 49, 1)])
    assert moved.run([Chunk(sequence(tokens, 4), 49, 1)]) == here
    assert torch.equal(moved.kv.view(4, 50), executor.kv.view(1, 50))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_slab_is_zero_and_knows_its_size(dtype: torch.dtype) -> None:
    slab = KVSlab(TINY, 3, 16, dtype)
    assert slab.data.shape == (3, 2, 3, 2, 16, 8)
    assert slab.data.dtype == dtype
    assert not slab.data.any()
    assert slab.bytes_per_token == slab.data.nbytes // (3 * 16)
    slab.view(1, 4).fill_(1)
    assert slab.data.sum().item() == slab.view(1, 16).sum().item() == 3 * 2 * 2 * 4 * 8


@pytest.mark.parametrize(("slot", "n"), [(-1, 1), (3, 1), (0, 17), (0, -1)])
def test_views_outside_the_slab_are_refused(slot: int, n: int) -> None:
    with pytest.raises(IndexError):
        KVSlab(TINY, 3, 16, torch.float32).view(slot, n)


@pytest.mark.parametrize(("slots", "max_len"), [(0, 16), (1, 0), (1, TINY.max_len + 1)])
def test_impossible_slabs_are_refused(slots: int, max_len: int) -> None:
    with pytest.raises(ValueError, match=r"slots|max_len"):
        KVSlab(TINY, slots, max_len, torch.float32)


# --- sampling ----------------------------------------------------------------------------------------------


@given(st.integers(), st.integers(0, 1 << 20))
def test_uniform_is_a_pure_function_into_the_unit_interval(seed: int, position: int) -> None:
    assert 0.0 <= uniform(seed, position) < 1.0
    assert uniform(seed, position) == uniform(seed, position)


def test_uniform_numbers_are_spread_evenly_over_seeds_and_positions() -> None:
    for numbers in ([uniform(0, p) for p in range(4000)], [uniform(s, 0) for s in range(4000)]):
        counts = torch.histc(torch.tensor(numbers), bins=10, min=0, max=1)
        # chi-square of 9 degrees of freedom: above 27.9 once in a thousand
        assert ((counts - 400) ** 2 / 400).sum().item() < 27.9


def test_draws_follow_the_distribution_and_no_others_follow_them() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.7]))
    n = 3000
    hot = [Sampling(1.0, seed=1)] * n
    tokens = sample(logits.expand(n, 3), hot, list(range(n)))
    shares = torch.bincount(torch.tensor(tokens), minlength=3) / n
    assert (shares - torch.tensor([0.1, 0.2, 0.7])).abs().max().item() < 0.03
    for i in (0, 17, 2999):  # alone, the same draw
        assert sample(logits[None], [hot[i]], [i]) == [tokens[i]]
    assert sample(logits[None], [Sampling(0.01, 1)], [0]) == [2]
    mixed = sample(logits.expand(2, 3), [Sampling(), hot[5]], [4, 5])
    assert mixed == [2, tokens[5]]


def test_certain_tokens_are_never_missed() -> None:
    logits = torch.full((1, 5), float("-inf"))
    logits[0, 0] = 0.0
    assert {sample(logits, [Sampling(1.0, s)], [0])[0] for s in range(50)} == {0}
    assert {sample(logits.flip(1), [Sampling(1.0, s)], [0])[0] for s in range(50)} == {4}


@pytest.mark.parametrize("temperature", [5e-324, 1e-50, 1e-38, 1e-6])
def test_a_vanishing_temperature_is_greedy(temperature: float) -> None:
    logits = torch.tensor([[0.5, 3.0, -2.0, 1.0]])
    assert {sample(logits, [Sampling(temperature, s)], [0])[0] for s in range(20)} == {1}


def test_impossible_tokens_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdserve.executors.sampling.uniform", lambda seed, position: 0.0)
    logits = torch.tensor([[float("-inf"), float("-inf"), 1.0, 2.0]])
    assert sample(logits, [Sampling(1.0)], [0]) == [2]


# --- the executor ------------------------------------------------------------------------------------------


def generate(executor_chunks: list[int], sampling: Sampling, slot: int, n: int = 8) -> list[int]:
    """Greedy or drawn continuation of one prompt whose prefill is cut into the given chunk sizes."""
    executor = tiny_executor()
    seq = sequence(some_tokens(30), slot, sampling)
    for count in executor_chunks:
        token = executor.run([Chunk(seq, seq.computed, count)])[0]
        seq.computed += count
    while True:
        assert token is not None
        seq.tokens.append(token)
        seq.emitted += 1
        if seq.emitted == n:
            return seq.tokens[30:]
        token = executor.run([Chunk(seq, seq.computed, seq.pending)])[0]
        seq.computed += 1


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, seed=3)])
def test_generation_does_not_depend_on_chunks_or_slot(sampling: Sampling) -> None:
    expected = generate([30], sampling, slot=0)
    assert generate([10, 19, 1], sampling, slot=3) == expected
    if sampling.temperature:
        assert generate([30], Sampling(0.8, seed=4), slot=0) != expected


def test_a_step_answers_in_the_callers_order() -> None:
    executor = tiny_executor()
    prompts = [some_tokens(n, seed=n) for n in (12, 5, 1, 9)]
    seqs = [sequence(p, slot) for p, slot in zip(prompts, (4, 0, 2, 1), strict=True)]
    alone = [executor.run([Chunk(s, 0, s.prompt_len)])[0] for s in seqs]
    chunks = [Chunk(s, 0, s.prompt_len) for s in seqs]
    chunks[1] = Chunk(seqs[1], 0, 4)  # stops short of its end: no token
    assert executor.run(chunks) == [alone[0], None, alone[2], alone[3]]
    assert executor.run([]) == []
    assert executor.run([chunks[1]]) == [None]


@pytest.mark.parametrize(
    ("seq", "chunk", "says"),
    [
        (Sequence("a", 2, 1, [1, 2], slot=-1), (0, 2), "slot -1"),
        (Sequence("a", 2, 1, [1, 2], slot=6), (0, 2), "slot 6"),
        (Sequence("a", 2, 1, [1, 2], slot=0), (0, 3), "known tokens"),
        (Sequence("a", 400, 1, [1] * 400, slot=0), (0, 400), "beyond a slot"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(seq: Sequence, chunk: tuple[int, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tiny_executor().run([Chunk(seq, *chunk)])


def test_build_executor_and_warm_up() -> None:
    executor = build_executor(preset="llama-10m", path=None, seed=0, dtype="float32", device="cpu", slots=2, max_len=32)
    executor.warm_up()
    assert executor.kv.slots == 2
    assert executor.shape is PRESETS["llama-10m"]
    with pytest.raises(ModelError, match="dtype"):
        build_executor(preset="llama-10m", path=None, seed=0, dtype="fp8", device="cpu", slots=1, max_len=8)
