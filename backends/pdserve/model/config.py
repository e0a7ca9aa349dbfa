"""What a model is, before a single weight is read: its shape, its memory, its hash.

A ``ModelShape`` is all that scheduling, memory accounting and cost models need to know, so this file never
imports torch: ``python -m pdserve check`` and the simulator stay fast and run where torch is not installed.

    >>> PRESETS["llama-30m"].d_model
    512
    >>> kv_bytes_per_token(PRESETS["llama-30m"], "bfloat16")
    4096
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
_RANDOM_LAW = "uniform-1"  # to be raised with any change to weights.random_weights
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself


class ModelError(Exception):
    """A model that cannot be served: what is wrong, and the key or file it is about."""

    def __init__(self, message: str, key: str = "") -> None:
        self.message = message
        self.key = key
        super().__init__(f"{key}: {message}" if key else message)


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """The frequency-dependent RoPE stretch of Llama 3.1 (Hugging Face ``rope_type: llama3``)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_len: int

    def __post_init__(self) -> None:
        if min(self.factor, self.low_freq_factor, self.high_freq_factor, self.original_max_len) <= 0:
            raise ValueError("rope scaling: every factor must be positive")
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("rope scaling: high_freq_factor must exceed low_freq_factor")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A Llama: sizes, rotary embedding and special tokens. Lengths are in tokens."""

    vocab: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    max_len: int
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Scaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False
    bos: int | None = None
    eos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("vocab", "d_model", "layers", "heads", "kv_heads", "head_dim", "d_ff", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim: rotary embeddings need an even size, got {self.head_dim}")
        if self.rope_theta <= 0 or self.norm_eps <= 0:
            raise ValueError("rope_theta and norm_eps: must be positive")

    @property
    def group(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads

    @property
    def parameters(self) -> int:
        """Number of weights; a tied head counts once."""
        attention = self.d_model * self.head_dim * 2 * (self.heads + self.kv_heads)
        per_layer = attention + 3 * self.d_model * self.d_ff + 2 * self.d_model
        embeddings = self.vocab * self.d_model * (1 if self.tied else 2)
        return self.layers * per_layer + embeddings + self.d_model


PRESETS: Mapping[str, ModelShape] = {
    "llama-30m": ModelShape(
        vocab=8192, d_model=512, layers=8, heads=8, kv_heads=2, head_dim=64, d_ff=1536, max_len=4096
    ),
    "llama-10m": ModelShape(
        vocab=8192, d_model=256, layers=6, heads=4, kv_heads=2, head_dim=64, d_ff=768, max_len=4096
    ),
}


def kv_bytes_per_token(shape: ModelShape, dtype: str) -> int:
    """Bytes of key/value cache one position takes over all layers (``dtype``: ``DTYPE_BYTES``)."""
    return shape.layers * 2 * shape.kv_heads * shape.head_dim * dtype_bytes(dtype)


def dtype_bytes(dtype: str) -> int:
    """Bytes per number. Raises ``ModelError`` for a dtype that is not served."""
    if dtype not in DTYPE_BYTES:
        raise ModelError(f"unknown dtype {dtype!r}; known: {', '.join(sorted(DTYPE_BYTES))}", "dtype")
    return DTYPE_BYTES[dtype]


def resolve_shape(*, preset: str | None, path: str | None) -> ModelShape:
    """The shape of a preset or of a Hugging Face directory. Exactly one must be given."""
    if (preset is None) == (path is None):
        raise ModelError("give either a preset or a path, not both", "model")
    if path is not None:
        return shape_from_hf(Path(path))
    if preset is None or preset not in PRESETS:
        raise ModelError(f"unknown preset {preset!r}; known: {', '.join(sorted(PRESETS))}", "preset")
    return PRESETS[preset]


def model_hash(*, preset: str | None, path: str | None, seed: int, dtype: str) -> str:
    """A sha256 that differs when the served numbers can differ.

    Random presets are a function of shape, seed and dtype. Directories are identified by ``config.json``,
    ``tokenizer.json`` and each safetensors file's header and size: reading gigabytes of weights only to name
    them would cost more than loading them.
    """
    digest = hashlib.sha256()
    digest.update(f"{dtype_bytes(dtype)}:{dtype}\n".encode())
    shape = resolve_shape(preset=preset, path=path)
    if path is None:
        digest.update(json.dumps([_RANDOM_LAW, asdict(shape), seed], sort_keys=True).encode())
        return digest.hexdigest()
    directory = Path(path)
    for name in ("config.json", "tokenizer.json"):
        file = directory / name
        digest.update(name.encode() + b"\n" + (file.read_bytes() if file.exists() else b""))
    for file in weight_files(directory):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode() + _safetensors_header(file))
    return digest.hexdigest()


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that make up the model, sorted. Raises ``ModelError`` if there are none."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError("has no weight_map", index.name)
        files = [directory / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"no *.safetensors file in {directory}", "path")
    for file in files:
        if not file.is_file():
            raise ModelError("named by model.safetensors.index.json but missing", file.name)
    return files


def _safetensors_header(file: Path) -> bytes:
    """The JSON header: 8 bytes of little-endian length, then that many bytes (the safetensors format)."""
    with file.open("rb") as stream:
        size_bytes = stream.read(8)
        size = struct.unpack("<Q", size_bytes)[0] if len(size_bytes) == 8 else 0
        header = stream.read(size) if 0 < size <= _MAX_HEADER_BYTES else b""
    if not header or len(header) != size:
        raise ModelError("is not a safetensors file (truncated header)", file.name)
    return header


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a model directory; missing or malformed is a ``ModelError`` named after the file."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"missing in {file.parent}", file.name) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}", file.name) from None
    if not isinstance(data, dict):
        raise ModelError("is not a JSON object", file.name)
    return data


def shape_from_hf(directory: Path) -> ModelShape:
    """The shape in a Hugging Face ``config.json``; what this engine cannot serve exactly is refused by name.

    Refused: other architectures, biases, quantised weights, activations other than SiLU, RoPE scaling other
    than ``llama3``. Guessing would produce fluent nonsense, the hardest fault to see.
    """
    if not directory.is_dir():
        raise ModelError(f"no such directory: {directory}", "path")
    config = read_json(directory / "config.json")
    _refuse_unsupported(config)
    heads = _whole(config, "num_attention_heads")
    d_model = _whole(config, "hidden_size")
    theta, scaling = _rope(config)
    try:
        return ModelShape(
            vocab=_whole(config, "vocab_size"),
            d_model=d_model,
            layers=_whole(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=_whole(config, "num_key_value_heads", heads),
            head_dim=_whole(config, "head_dim", d_model // max(heads, 1)),
            d_ff=_whole(config, "intermediate_size"),
            max_len=_whole(config, "max_position_embeddings", 2048),
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=_number(config, "rms_norm_eps", 1e-6),
            tied=bool(config.get("tie_word_embeddings", False)),
            bos=config.get("bos_token_id"),
            eos=token_ids(config.get("eos_token_id")),
        )
    except ValueError as error:
        raise ModelError(str(error), "config.json") from None


def token_ids(value: Any) -> tuple[int, ...]:
    """``eos_token_id`` comes as a number, a list of numbers, or null."""
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, int) for v in values):
        raise ModelError(f"expected a token id or a list of them, got {value!r}", "eos_token_id")
    return tuple(values)


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    architectures = config.get("architectures") or []
    if architectures != ["LlamaForCausalLM"]:
        named = ", ".join(map(str, architectures)) or "none named"
        raise ModelError(f"only LlamaForCausalLM is supported, this is: {named}", "architectures")
    for key in ("attention_bias", "mlp_bias", "quantization_config"):
        if config.get(key):
            raise ModelError(f"not supported: {config[key]!r}", key)
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"only silu is supported, not {config['hidden_act']!r}", "hidden_act")


def _rope(config: Mapping[str, Any]) -> tuple[float, Llama3Scaling | None]:
    """Theta and scaling, from ``rope_parameters`` (transformers 5) or ``rope_theta`` + ``rope_scaling``."""
    key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    rope = config.get(key) or {}
    if not isinstance(rope, dict):
        raise ModelError(f"expected an object, got {rope!r}", key)
    theta = _number(rope, "rope_theta", _number(config, "rope_theta", 10_000.0))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelError("partial rotary embeddings are not supported", f"{key}.partial_rotary_factor")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ModelError(f"only 'default' and 'llama3' are supported, not {kind!r}", f"{key}.rope_type")
    try:
        return theta, Llama3Scaling(
            factor=_number(rope, "factor"),
            low_freq_factor=_number(rope, "low_freq_factor"),
            high_freq_factor=_number(rope, "high_freq_factor"),
            original_max_len=_whole(rope, "original_max_position_embeddings"),
        )
    except ValueError as error:
        raise ModelError(str(error), key) from None


def _number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ModelError("missing" if value is None else f"expected a number, got {value!r}", key)
    return float(value)


def _whole(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = _number(config, key, default)
    if value != int(value):
        raise ModelError(f"expected a whole number, got {value!r}", key)
    return int(value)
