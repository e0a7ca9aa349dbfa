"""The backend YAML, typed: what to run, on which devices, under which policy.

``parse`` takes the file's content as plain data and returns a ``BackendConfig`` or raises ``ConfigError`` with
the path of the offending key, so that whoever read the file can name its line. Nothing here imports torch:
``python -m pdserve check`` must answer at once.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

Role = Literal["prefill", "decode", "mixed"]
Policy = Literal["prefill_first", "chunked", "prefill_only", "decode_only"]
DEFAULT_POLICY: dict[str, Policy] = {
    "prefill": "prefill_only",
    "decode": "decode_only",
    "mixed": "prefill_first",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration: where (``("workers", 0, "role")``), what, and what to do."""

    path: tuple[str | int, ...]
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path).lstrip(".")
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class ConfigError(Exception):
    """A backend file that cannot be run."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def fail(*path: str | int, message: str, remedy: str = "") -> ConfigError:
    return ConfigError(Problem(path, message, remedy))


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the YAML: frozen, and unknown keys are errors."""


class ModelConfig(_Part, frozen=True, kw_only=True):
    """``preset`` (random weights by ``seed``) or ``path`` (a local Hugging Face directory)."""

    preset: str | None = None
    path: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    seed: int = 0
    max_len: int | None = None


class WorkerConfig(_Part, frozen=True, kw_only=True):
    """One worker process on one device.

    ``max_batch``: sequences in one step. ``max_batch_tokens``: prompt tokens in one prefill step (longer
    prompts are split). ``token_budget``: all tokens of a mixed step under ``policy: chunked``. ``slots``:
    sequences whose KV fits at once; a prefill worker holds finished prompts in them until their hand-off.
    """

    role: Role
    device: int | str
    policy: Policy | None = None
    max_batch: int = 32
    max_batch_tokens: int = 2048
    token_budget: int = 256
    slots: int | None = None

    @property
    def effective_policy(self) -> Policy:
        return self.policy or DEFAULT_POLICY[self.role]

    @property
    def effective_slots(self) -> int:
        return self.slots or self.max_batch


class TransferConfig(_Part, frozen=True, kw_only=True):
    """How KV crosses. ``auto``: device to device on CUDA, else shared memory. ``staging``: hand-offs that may
    be under way from one prefill worker. ``timeout_s``: a hand-off older than this is given up."""

    connector: Literal["auto", "shm", "cuda"] = "auto"
    staging: int = 4
    timeout_s: float = 10.0


class CostModel(_Part, frozen=True, kw_only=True):
    """How long things take on the virtual clock, in milliseconds.

    A step takes ``step_ms`` + ``prefill_ms_per_token`` x prefill tokens + ``attention_ms_per_mtoken2`` x
    sum(chunk x (prefix + chunk / 2)) / 1e6 + (if it decodes) ``decode_ms_per_step`` +
    ``decode_ms_per_sequence`` x sequences + ``decode_ms_per_mtoken`` x sum(context) / 1e6.
    A hand-off takes ``transfer_ms`` + bytes / ``transfer_gb_per_s``; 0 means an infinitely fast link.
    """

    source: str = ""
    step_ms: float = 0.0
    prefill_ms_per_token: float = 0.0
    attention_ms_per_mtoken2: float = 0.0
    decode_ms_per_step: float = 0.0
    decode_ms_per_sequence: float = 0.0
    decode_ms_per_mtoken: float = 0.0
    transfer_ms: float = 0.0
    transfer_gb_per_s: float = 0.0


_STALL = re.compile(r"^(?P<share>\d+(?:\.\d+)?)%@(?P<ms>\d+(?:\.\d+)?)ms$")
_SHARE = re.compile(r"^(?P<share>\d+(?:\.\d+)?)%$")


class Inject(_Part, frozen=True, kw_only=True):
    """Faults on purpose (see ``inject.py``): factors of at least 1, ``stall`` as ``"2%@50ms"``, and ``drop`` as
    ``"20%"``, the share of requests that are answered with an error 500."""

    prefill: float = 1.0
    decode: float = 1.0
    transfer: float = 1.0
    stall: str = "0%@0ms"
    drop: str = "0%"

    def __post_init__(self) -> None:
        for key in ("prefill", "decode", "transfer"):
            if not 1 <= getattr(self, key) < float("inf"):
                raise ValueError(f"{key} must be a factor of at least 1, got {getattr(self, key)}")
        match = _STALL.match(self.stall)
        if match is None or float(match["share"]) > 100:
            raise ValueError(f"stall reads like 2%@50ms, got {self.stall!r}")
        match = _SHARE.match(self.drop)
        if match is None or float(match["share"]) > 100:
            raise ValueError(f"drop reads like 20%, got {self.drop!r}")

    @property
    def stall_share(self) -> float:
        match = _STALL.match(self.stall)
        return float(match["share"]) / 100 if match else 0.0

    @property
    def drop_share(self) -> float:
        return float(self.drop.removesuffix("%")) / 100

    @property
    def stall_ns(self) -> int:
        match = _STALL.match(self.stall)
        return round(float(match["ms"]) * 1e6) if match else 0


class BackendConfig(_Part, frozen=True, kw_only=True):
    """The whole file. ``tuned``: what a sweep noted of how it chose the numbers; read by nobody here."""

    name: str
    engine: Literal["pdserve"] = "pdserve"
    description: str = ""
    model: ModelConfig = ModelConfig(preset="llama-30m")
    workers: list[WorkerConfig]
    transfer: TransferConfig = TransferConfig()
    cost_model: CostModel | None = None
    inject: Inject | None = None
    tuned: dict[str, Any] | None = None
    host: str = "127.0.0.1"
    port: int | None = None

    @property
    def disaggregated(self) -> bool:
        return any(w.role != "mixed" for w in self.workers)


def parse(data: object) -> BackendConfig:
    """Checks plain data (a parsed YAML) into a ``BackendConfig``. Raises ``ConfigError``."""
    if not isinstance(data, dict):
        raise fail(message="a backend file is a mapping with the keys name, model, workers, ...")
    try:
        config = msgspec.convert(data, BackendConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(_problem(str(error), data)) from None
    _check_model(config.model)
    _check_workers(config)
    _check_numbers(config)
    return config


def _check_model(model: ModelConfig) -> None:
    if (model.preset is None) == (model.path is None):
        raise fail("model", message="give exactly one of preset and path")
    if model.max_len is not None and model.max_len < 2:
        raise fail("model", "max_len", message=f"must be at least 2, got {model.max_len}")


def _check_workers(config: BackendConfig) -> None:
    roles = [w.role for w in config.workers]
    if not roles:
        raise fail("workers", message="at least one worker is needed")
    if ("prefill" in roles) != ("decode" in roles):
        missing = "decode" if "prefill" in roles else "prefill"
        raise fail("workers", message=f"no {missing} worker", remedy=f"add one with role: {missing}")
    if "mixed" in roles and "prefill" in roles:
        raise fail("workers", message="mixed workers beside prefill and decode workers are not supported")
    for i, worker in enumerate(config.workers):
        allowed = ("prefill_first", "chunked") if worker.role == "mixed" else (DEFAULT_POLICY[worker.role],)
        if worker.effective_policy not in allowed:
            raise fail(
                "workers",
                i,
                "policy",
                message=f"a {worker.role} worker cannot run {worker.policy}",
                remedy=f"use {' or '.join(allowed)}",
            )


def _check_numbers(config: BackendConfig) -> None:
    for i, worker in enumerate(config.workers):
        for key in ("max_batch", "max_batch_tokens", "token_budget", "slots"):
            value = getattr(worker, key)
            if value is not None and value < 1:
                raise fail("workers", i, key, message=f"must be at least 1, got {value}")
        if isinstance(worker.device, int) and worker.device < 0:
            raise fail("workers", i, "device", message=f"must be 0 or more, got {worker.device}")
        if worker.effective_policy == "chunked" and worker.token_budget <= worker.max_batch:
            raise fail(
                "workers",
                i,
                "token_budget",
                message=f"{worker.token_budget} is not above max_batch ({worker.max_batch}): "
                "with every sequence decoding no token would be left for prompts",
                remedy="raise token_budget or lower max_batch",
            )
    if config.transfer.staging < 1:
        raise fail("transfer", "staging", message=f"must be at least 1, got {config.transfer.staging}")
    if not config.transfer.timeout_s > 0:
        raise fail("transfer", "timeout_s", message=f"must be above 0, got {config.transfer.timeout_s}")
    if config.port is not None and not 0 <= config.port <= 65535:
        raise fail("port", message=f"must be in 0..65535, got {config.port}")
    for key, value in msgspec.structs.asdict(config.cost_model).items() if config.cost_model else ():
        if isinstance(value, float) and not 0 <= value < float("inf"):
            raise fail("cost_model", key, message=f"must be finite and not negative, got {value}")


_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.S)
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")
_FIELDS = sorted(
    {
        f
        for t in (BackendConfig, ModelConfig, WorkerConfig, TransferConfig, CostModel, Inject)
        for f in t.__struct_fields__
    }
)


def _problem(text: str, data: Any) -> Problem:
    """Turns msgspec's message ("... - at `$.workers[0].role`") into a path, a message and a remedy."""
    match = _AT.match(text)
    what, raw = (match["what"], match["path"] or "") if match else (text, "")
    path: list[str | int] = [int(index) if index else key for key, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", raw)]
    unknown = _UNKNOWN.search(what)
    if unknown:
        near = difflib.get_close_matches(unknown["key"], _FIELDS, n=1)
        remedy = f"did you mean '{near[0]}'?" if near else "remove it"
        return Problem((*path, unknown["key"]), "unknown key", remedy)
    value = data
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            break
    shown = f" (got {value!r})" if path and not isinstance(value, dict | list) else ""
    return Problem(tuple(path), what[:1].lower() + what[1:] + shown)
