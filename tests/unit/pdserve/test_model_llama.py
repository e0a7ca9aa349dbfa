"""The forward pass: against Hugging Face, whole against chunked, mixed against alone."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdserve.executors.torch_executor import TorchExecutor, build_executor
from pdserve.model import attention_cpu
from pdserve.model.attention import SdpaSlab, group_decodes
from pdserve.model.attention_cpu import CpuSlab
from pdserve.model.batch import Span, make_batch
from pdserve.model.config import ModelError, ModelShape, shape_from_hf
from pdserve.model.weights import load_weights
from tests.unit.pdserve.model_help import TINY, some_tokens, tiny_executor

CPU = torch.device("cpu")
TOLERANCE = 1e-4  # fp32; ENGINE's bar for "the same model"


def whole(executor: TorchExecutor, tokens: tuple[int, ...], slot: int = 0) -> Tensor:
    return executor.logits([Span(slot, 0, tokens, True)])[0]


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= tolerance


# --- against Hugging Face ---------------------------------------------------------------------------------


def save_hf(directory: Path, *, shard: str = "5GB", **change: Any) -> Any:
    """A small random Llama of transformers, saved to ``directory``; returns the model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from transformers import LlamaConfig, LlamaForCausalLM
    config = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,  # the default is so small that every logit is near zero
    }
    torch.manual_seed(3)
    model: Any = LlamaForCausalLM(LlamaConfig(**(config | change)))
    model.eval()
    with torch.no_grad():  # norms start at one, which would hide a forgotten multiplication
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.rand_like(parameter))
    model.save_pretrained(directory, max_shard_size=shard)
    return model


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("grouped", {}),
        ("tied", {"tie_word_embeddings": True}),
        ("every head its own", {"num_key_value_heads": 4}),
        ("one key head", {"num_key_value_heads": 1}),
        ("wide heads", {"head_dim": 16}),
        ("llama3 rope", {"rope_parameters": LLAMA3}),
        ("sharded", {"shard": "20KB"}),
    ],
)
def test_logits_are_those_of_hugging_face(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    model = save_hf(tmp_path, **change)
    if name == "sharded":
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
    executor = build_executor(
        preset=None, path=str(tmp_path), seed=0, dtype="float32", device="cpu", slots=2, max_len=128
    )
    tokens = some_tokens(90, vocab=61)
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0]
    assert theirs.std() > 0.1
    assert_close(whole(executor, tokens), theirs)


def test_bad_tensors_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_hf(tmp_path)
    shape, file = shape_from_hf(tmp_path), tmp_path / "model.safetensors"
    good = load_file(file)

    def loading(tensors: dict[str, Tensor]) -> str:
        save_file(tensors, file)
        with pytest.raises(ModelError) as caught:
            load_weights(tmp_path, shape, torch.float32)
        return str(caught.value)

    name = "model.layers.1.mlp.down_proj.weight"
    assert f"missing tensors: {name}" in loading({k: v for k, v in good.items() if k != name})
    assert "unexpected tensors: extra" in loading(good | {"extra": torch.zeros(1)})
    assert f"{name}: has shape [3]" in loading(good | {name: torch.zeros(3)})
    assert "quantised" in loading(good | {name: torch.zeros(32, 56, dtype=torch.int8)})
    assert "missing tensors: " in (text := loading({"model.norm.weight": good["model.norm.weight"]}))
    assert "more" in text
    save_file(good | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, file)
    assert load_weights(tmp_path, shape, torch.float32).keys() == good.keys()
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        load_weights(tmp_path, shape, torch.float32)


# --- whole against chunked, mixed against alone ------------------------------------------------------------

EXECUTOR = tiny_executor()
LONG = some_tokens(300)
REFERENCE = whole(EXECUTOR, LONG)


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 299), max_size=6), slot=st.integers(0, 5))
def test_chunked_prefill_equals_whole(cuts: set[int], slot: int) -> None:
    edges = [0, *sorted(cuts), 300]
    pieces = [EXECUTOR.logits([Span(slot, a, LONG[a:b], True)])[0] for a, b in pairwise(edges)]
    assert_close(torch.cat(pieces), REFERENCE)


@pytest.mark.parametrize("cuts", [[128], [127, 129], [1, 2, 3], list(range(64, 300, 64)), [299]])
@pytest.mark.parametrize("fused", [False, True])
def test_chunks_at_the_edges_of_blocks(cuts: list[int], fused: bool) -> None:
    attention = SdpaSlab(TINY, torch.float32, CPU) if fused else None
    executor = tiny_executor(attention=attention)
    edges = [0, *cuts, 300]
    pieces = [executor.logits([Span(2, a, LONG[a:b], True)])[0] for a, b in pairwise(edges)]
    assert_close(torch.cat(pieces), REFERENCE)


@st.composite
def mixtures(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(slot, start, count) for some slots in any order: decodes and chunks, first chunks and later ones."""
    slots = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
    spans = []
    for slot in slots:
        start = draw(st.integers(0, 270))
        count = 1 if draw(st.booleans()) else draw(st.integers(1, 300 - start))
        spans.append((slot, start, count))
    return spans


@settings(max_examples=25, deadline=None)
@given(mixture=mixtures(), matmul=st.booleans())
def test_any_mixture_equals_each_alone(mixture: list[tuple[int, int, int]], matmul: bool) -> None:
    """Every slot holds the same sequence, so the whole-prompt logits are the answer for every span."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_cpu, "_MATMUL_FROM", 0 if matmul else 10**9)
        for slot, start, _ in mixture:
            if start:
                EXECUTOR.logits([Span(slot, 0, LONG[:start], False)])
        spans = [Span(slot, start, LONG[start : start + count], True) for slot, start, count in mixture]
        for (_, start, count), logits in zip(mixture, EXECUTOR.logits(spans), strict=True):
            assert_close(logits, REFERENCE[start : start + count])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", [CpuSlab, SdpaSlab])
def test_stale_neighbours_do_not_leak(dtype: str, backend: type[SdpaSlab]) -> None:
    """A short sequence in a group with a long one, its slot full of what an earlier sequence left behind."""
    shape = TINY
    executor = tiny_executor(dtype=dtype, attention=backend(shape, getattr(torch, dtype), CPU))
    for slot in (1, 2):
        executor.logits([Span(slot, 0, LONG, False)])  # leftovers
    executor.logits([Span(1, 0, LONG[:200], False)])
    executor.logits([Span(2, 0, LONG[5:105], False)])
    alone = executor.logits([Span(2, 100, (9,), True)])[0]
    together = executor.logits([Span(1, 200, (4,), True), Span(2, 100, (9,), True)])[1]
    assert torch.isfinite(together).all()
    assert_close(together.float(), alone.float(), TOLERANCE if dtype == "float32" else 0.1)


def test_only_the_sampled_rows_reach_the_head() -> None:
    spans = [Span(3, 0, LONG[:40], False), Span(1, 0, LONG[:30], True), Span(0, 0, LONG[:1], True)]
    batch = make_batch(spans, CPU)
    with torch.inference_mode():
        logits = EXECUTOR.model.forward(batch, EXECUTOR.kv)
        none = EXECUTOR.model.forward(make_batch(spans[:1], CPU), EXECUTOR.kv)
    assert batch.order == (2, 1, 0)
    assert_close(logits, REFERENCE[[0, 29]])
    assert none.shape == (0, TINY.vocab)


def test_chunks_without_samples_still_fill_the_cache() -> None:
    executor = tiny_executor()
    with torch.inference_mode():
        executor.model.forward(make_batch([Span(0, 0, LONG[:40], False)], CPU), executor.kv)
    assert_close(executor.logits([Span(0, 40, LONG[40:60], True)])[0], REFERENCE[40:60])


def test_bfloat16_stays_near_float32() -> None:
    rough = tiny_executor(dtype="bfloat16")
    assert (whole(rough, LONG).float() - REFERENCE).abs().max().item() < 0.2


@pytest.mark.parametrize("spans", [[Span(0, 0, (), True)], [Span(1, 0, (1,), True), Span(1, 1, (2,), True)]])
def test_impossible_batches_are_refused(spans: list[Span]) -> None:
    with pytest.raises(ValueError, match="span"):
        make_batch(spans, CPU)


# --- grouping decodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "groups"),
    [
        ([], []),
        ([(0, 10)], [[0]]),
        ([(0, 500), (1, 520), (2, 510)], [[0, 1, 2]]),
        ([(0, 500), (2, 500)], [[0], [2]]),  # an empty slot between
        ([(0, 500), (1, 100), (2, 90)], [[0], [1, 2]]),  # too much padding for the second
        ([(0, 100), (1, 150), (2, 190)], [[0, 1, 2]]),
        ([(0, 100), (1, 100), (2, 100), (3, 150)], [[0, 1, 2], [3]]),  # the longer one would pad three
    ],
)
def test_decodes_share_a_call_while_padding_is_cheap(places: list[tuple[int, int]], groups: list[list[int]]) -> None:
    spans = [Span(slot, end - 1, (0,), True) for slot, end in places]
    found = group_decodes(spans, call_cost=100)
    assert [[span.slot for span in members] for _, members in found] == groups
    assert [first for first, _ in found] == [sum(map(len, groups[:i])) for i in range(len(groups))]


def test_a_model_with_one_layer_and_a_shared_head_runs() -> None:
    shape = ModelShape(vocab=11, d_model=16, layers=1, heads=2, kv_heads=1, head_dim=8, d_ff=16, max_len=32, tied=True)
    executor = tiny_executor(shape, slots=1, max_len=32)
    assert whole(executor, (1, 2, 3)).shape == (3, 11)
