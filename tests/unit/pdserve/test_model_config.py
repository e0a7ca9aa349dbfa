"""Shapes, hashes and the directories that are refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pdserve.model.config import (
    PRESETS,
    Llama3Scaling,
    ModelError,
    ModelShape,
    kv_bytes_per_token,
    model_hash,
    resolve_shape,
    shape_from_hf,
    token_ids,
    weight_files,
)

GOOD: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def write_model(directory: Path, config: dict[str, Any], weights: bytes = b"x" * 8) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)
    return directory


def test_the_30m_preset_is_as_announced() -> None:
    shape = PRESETS["llama-30m"]
    assert (shape.d_model, shape.layers, shape.d_ff, shape.heads, shape.kv_heads) == (512, 8, 1536, 8, 2)
    assert (shape.head_dim, shape.vocab, shape.max_len) == (64, 8192, 4096)
    assert kv_bytes_per_token(shape, "bfloat16") == 4096
    assert kv_bytes_per_token(shape, "float32") == 8192
    assert 28e6 < shape.parameters < 33e6


def test_a_good_directory_is_read(tmp_path: Path) -> None:
    shape = shape_from_hf(write_model(tmp_path / "m", GOOD))
    assert shape == ModelShape(
        vocab=100, d_model=32, layers=2, heads=4, kv_heads=2, head_dim=8, d_ff=64, max_len=256,
        tied=True, bos=1, eos=(2,),
    )  # fmt: skip
    assert resolve_shape(preset=None, path=str(tmp_path / "m")) == shape


@pytest.mark.parametrize("style", ["rope_scaling", "rope_parameters"])
def test_llama3_rope_scaling_is_read_in_both_spellings(tmp_path: Path, style: str) -> None:
    config = GOOD | {style: LLAMA3 | ({"rope_theta": 5e5} if style == "rope_parameters" else {})}
    shape = shape_from_hf(write_model(tmp_path / "m", config))
    assert shape.rope_scaling == Llama3Scaling(8.0, 1.0, 4.0, 64)
    assert shape.rope_theta == (5e5 if style == "rope_parameters" else 1e4)


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "architectures", "MistralForCausalLM"),
        ({"architectures": None}, "architectures", "none named"),
        ({"attention_bias": True}, "attention_bias", "not supported"),
        ({"mlp_bias": True}, "mlp_bias", "not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config", "not supported"),
        ({"hidden_act": "gelu"}, "hidden_act", "gelu"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling.rope_type", "linear"),
        ({"rope_scaling": "yarn"}, "rope_scaling", "expected an object"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type", "yarn"),
        ({"rope_scaling": {**LLAMA3, "factor": None}}, "factor", "missing"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 0.5}}, "rope_scaling", "exceed"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor", "par"),
        ({"vocab_size": None}, "vocab_size", "missing"),
        ({"hidden_size": "32"}, "hidden_size", "expected a number"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers", "whole number"),
        ({"num_key_value_heads": 3}, "config.json", "multiple"),
        ({"num_attention_heads": 0}, "config.json", "at least 1"),
        ({"head_dim": 7}, "config.json", "even"),
        ({"eos_token_id": "</s>"}, "eos_token_id", "token id"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tmp_path: Path, change: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        shape_from_hf(write_model(tmp_path / "m", GOOD | change))
    assert caught.value.key == key


def test_missing_and_broken_directories(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        shape_from_hf(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"config\.json: missing"):
        shape_from_hf(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        shape_from_hf(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="not a JSON object"):
        shape_from_hf(tmp_path)
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "part-1.safetensors"}}')
    with pytest.raises(ModelError, match=r"part-1\.safetensors: named by"):
        weight_files(tmp_path)


@pytest.mark.parametrize(("preset", "path"), [(None, None), ("llama-30m", "x"), ("llama-31m", None)])
def test_a_model_is_one_preset_or_one_path(preset: str | None, path: str | None) -> None:
    with pytest.raises(ModelError):
        resolve_shape(preset=preset, path=path)


@pytest.mark.parametrize(("value", "ids"), [(None, ()), (3, (3,)), ([3, 4], (3, 4))])
def test_token_ids(value: Any, ids: tuple[int, ...]) -> None:
    assert token_ids(value) == ids


def test_preset_hash_depends_on_all_that_changes_the_numbers() -> None:
    hashes = {
        model_hash(preset=preset, path=None, seed=seed, dtype=dtype)
        for preset in PRESETS
        for seed in (0, 1)
        for dtype in ("bfloat16", "float32")
    }
    assert len(hashes) == 8
    assert hashes == hashes | {model_hash(preset="llama-30m", path=None, seed=0, dtype="bfloat16")}
    with pytest.raises(ModelError, match="unknown dtype"):
        model_hash(preset="llama-30m", path=None, seed=0, dtype="float16")


def test_directory_hash_follows_config_tokenizer_header_and_size(tmp_path: Path) -> None:
    def hash_of(directory: Path) -> str:
        return model_hash(preset=None, path=str(directory), seed=0, dtype="float32")

    model = write_model(tmp_path / "m", GOOD)
    first = hash_of(model)
    assert first == hash_of(write_model(tmp_path / "copy", GOOD))
    assert first != hash_of(write_model(tmp_path / "eps", GOOD | {"rms_norm_eps": 1e-6}))
    assert first != hash_of(write_model(tmp_path / "longer", GOOD, weights=b"x" * 16))
    (model / "tokenizer.json").write_text('{"a": 1}')
    assert first != hash_of(model)
    (model / "model.safetensors").write_bytes(b"\xff" * 12)
    with pytest.raises(ModelError, match="truncated header"):
        hash_of(model)


@pytest.mark.parametrize("change", [{"layers": 0}, {"kv_heads": 3}, {"head_dim": 7}, {"norm_eps": 0.0}])
def test_shapes_validate_themselves(change: dict[str, Any]) -> None:
    sizes = {"vocab": 10, "d_model": 8, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 2}
    good: dict[str, Any] = sizes | {"d_ff": 8, "max_len": 16}
    ModelShape(**good)
    with pytest.raises(ValueError, match=next(iter(change))):
        ModelShape(**(good | change))


def test_no_torch_is_needed_to_name_a_model() -> None:
    code = (
        "import sys; import pdserve.model.config, pdserve.model.tokenizer as t;"
        "t.load_tokenizer(preset='llama-30m', path=None).encode('a b');"
        "sys.exit('torch' in sys.modules)"
    )
    path = str(Path(__file__).parents[3] / "backends")
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, timeout=60).returncode == 0
