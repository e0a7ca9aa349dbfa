"""From the YAML's ``model:`` to facts: name, hash, dtype, maximum length, KV bytes a token. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pdserve import devices
from pdserve.config import BackendConfig, ModelConfig, fail
from pdserve.model.config import ModelError, kv_bytes_per_token, model_hash, resolve_shape


@dataclass(frozen=True, slots=True)
class Model:
    """What the harness needs to know of a model. ``kv_bytes_per_token``: of one position in all layers."""

    name: str
    hash: str
    dtype: str
    max_len: int
    kv_bytes_per_token: int
    vocab_size: int


def resolve_model(model: ModelConfig) -> Model:
    """Raises ``ConfigError`` for an unknown preset, a missing or foreign directory, or too long a ``max_len``."""
    key = "preset" if model.preset is not None else "path"
    try:
        shape = resolve_shape(preset=model.preset, path=model.path)
        digest = model_hash(preset=model.preset, path=model.path, seed=model.seed, dtype=model.dtype)
    except ModelError as error:
        raise fail("model", key, message=str(error)) from None
    name = model.preset or Path(str(model.path)).resolve().name
    max_len = model.max_len or shape.max_len
    if max_len > shape.max_len:
        raise fail("model", "max_len", message=f"{max_len} is more than the model's own maximum of {shape.max_len}")
    return Model(name, digest, model.dtype, max_len, kv_bytes_per_token(shape, model.dtype), shape.vocab)


def describe(config: BackendConfig) -> dict[str, Any]:
    """What ``python -m pdserve check`` prints of a good file. Raises ``ConfigError``."""
    model = resolve_model(config.model)
    simulated = config.cost_model is not None
    resolved = [] if simulated else devices.resolve(config.workers)
    names = [d.name for d in resolved] or [f"virtual:{w.device}" for w in config.workers]
    return {
        "ok": True,
        "name": config.name,
        "simulated": simulated,
        "disaggregated": config.disaggregated,
        "devices": sorted(set(names)),
        "device_count": len(set(names)),
        "shared_devices": any(d.shared for d in resolved),
        "model": asdict(model),
        "port": config.port,
        "workers": [
            {
                "role": w.role,
                "policy": w.effective_policy,
                "device": name,
                "slots": w.effective_slots,
                "max_batch": w.max_batch,
                "token_budget": w.token_budget if w.effective_policy == "chunked" else None,
                "kv_bytes": w.effective_slots * model.max_len * model.kv_bytes_per_token,
            }
            for w, name in zip(config.workers, names, strict=True)
        ],
    }
