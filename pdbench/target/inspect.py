"""What a server says of itself: its models, its counters, and how it counts tokens.

Two things must be known before a run: how many words make a prompt of n tokens (a server of ours maps one
word to one token; any other is calibrated against its own ``usage``), and whether it reports usage with every
chunk and takes the options that force an output length. Both are found by asking it once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pdbench.errors import BackendStartError, UsageError, did_you_mean
from pdbench.target.backend import Backend
from pdbench.target.http import NoAnswer, Refused, fetch, fetch_json
from pdbench.workload.prompts import PromptMaker

_PROBE_TIMEOUT_S = 120.0
_EXACT = 0.002
"""Below this share of a token a word the server counts words: the rest is rounding."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the run needs to know about a started arm."""

    model: str
    max_model_len: int | None
    words_per_token: float
    overhead_tokens: int
    prompt_token_source: str
    ignore_eos: bool
    continuous_usage: bool
    warnings: tuple[str, ...] = ()
    probes: tuple[tuple[str, int], ...] = ()
    """Prompts that the server was asked to count, and what it counted."""


def admin(base_url: str, what: str) -> dict[str, Any]:
    """``/admin/state``, ``/admin/requests`` or ``/admin/steps`` of a pdserve; ``{}`` when it is silent."""
    try:
        return fetch_json(f"{base_url}/admin/{what}", timeout_s=30.0)
    except (NoAnswer, Refused):
        return {}


def probe(base_url: str) -> dict[str, float]:
    """How fast the devices of a pdserve are right now: mean seconds over its workers, by kernel (``gemm``, ``copy``,
    ``transfer``). Ask while nothing is served. ``{}`` when it is silent."""
    try:
        rows = fetch_json(f"{base_url}/admin/probe", post=True, timeout_s=_PROBE_TIMEOUT_S).get("probes") or []
    except (NoAnswer, Refused):
        return {}
    taken: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key.endswith("_ms") and isinstance(value, int | float) and 0 < value < math.inf:
                taken.setdefault(key.removesuffix("_ms"), []).append(value / 1e3)
    return {kernel: sum(values) / len(values) for kernel, values in taken.items()}


def clear(base_url: str) -> None:
    """Forget kept lifecycles, steps and counters. Raises ``NoAnswer`` or ``Refused``."""
    fetch(f"{base_url}/admin/clear", post=True)


def inspect(backend: Backend, base_url: str) -> Facts:
    """Ask a ready server once.

    Raises ``UsageError`` for an unknown model, ``BackendStartError`` when its API cannot be used.
    """
    key = os.environ.get(backend.api_key_env) if backend.api_key_env else None
    model, max_len = _pick_model(backend, base_url, key)
    ask = _Asker(base_url, backend.api, model, key, backend.extra_body)
    force, continuous = ask.abilities(backend.name)
    warnings = []
    if not force:
        warnings.append(f"{backend.name} refuses ignore_eos: output lengths are not forced")
    probes = _probe_counts(ask, max_len)
    words, overhead, source = _calibrate(probes)
    if source == "assumed":
        warnings.append(f"{backend.name} reports no usage: one word is taken for one token")
    return Facts(
        model=model,
        max_model_len=max_len,
        words_per_token=words,
        overhead_tokens=overhead,
        prompt_token_source=source,
        ignore_eos=force,
        continuous_usage=continuous,
        warnings=tuple(warnings),
        probes=probes,
    )


def check_takes_ids(backend: Backend, base_url: str, model: str, ids: list[int]) -> None:
    """Send one prompt as token ids. Raises ``UsageError`` where the server refuses it."""
    key = os.environ.get(backend.api_key_env) if backend.api_key_env else None
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, **backend.extra_body}
    try:
        fetch(base_url + "/v1/completions", body=body, api_key=key, timeout_s=_PROBE_TIMEOUT_S)
    except (NoAnswer, Refused) as error:
        remedy = "leave --prompt-ids out; --tokenizer alone counts exactly as well"
        raise UsageError(
            f"{backend.name} takes no prompt of token ids: {error}", where="--prompt-ids", remedy=remedy
        ) from error


def _pick_model(backend: Backend, base_url: str, key: str | None) -> tuple[str, int | None]:
    try:
        listed = fetch_json(f"{base_url}/v1/models", api_key=key).get("data") or []
    except (NoAnswer, Refused) as error:
        raise BackendStartError(f"no list of models: {error}", where=backend.name) from error
    by_id = {str(entry.get("id")): entry for entry in listed if isinstance(entry, dict)}
    name = backend.model or next(iter(by_id), None)
    if name is None:
        raise BackendStartError("the server lists no model", where=backend.name, remedy="name one with --model")
    if by_id and name not in by_id:
        raise UsageError(
            f"the server has no model '{name}'", where=backend.name, remedy=did_you_mean(name, list(by_id))
        )
    entry = by_id.get(name, {})
    length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx")
    return name, int(length) if isinstance(length, int | float) and length > 0 else None


@dataclass(frozen=True, slots=True)
class _Asker:
    """Sends single probe requests."""

    base_url: str
    api: str
    model: str
    key: str | None
    extra_body: dict[str, Any]

    def _post(self, text: str, **options: Any) -> bytes:
        path = "/v1/chat/completions" if self.api == "chat" else "/v1/completions"
        body: dict[str, Any] = {"model": self.model, "temperature": 0.0, **self.extra_body, **options}
        if self.api == "chat":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt"] = text
        return fetch(self.base_url + path, body=body, api_key=self.key, timeout_s=_PROBE_TIMEOUT_S)

    def prompt_tokens(self, text: str) -> int | None:
        """What the server counts for this prompt, or None if it does not say."""
        answer = json.loads(self._post(text, max_tokens=1, stream=False))
        usage = answer.get("usage") or {}
        count = usage.get("prompt_tokens")
        return int(count) if isinstance(count, int) and count > 0 else None

    def abilities(self, name: str) -> tuple[bool, bool]:
        """(takes ``ignore_eos``, reports usage with every chunk). Raises ``BackendStartError`` if it cannot
        stream at all."""
        text = PromptMaker(salt="abilities").text(0, 8)
        options: dict[str, Any] = {"max_tokens": 4, "stream": True}
        usage: dict[str, Any] = {"include_usage": True, "continuous_usage_stats": True}
        forced: dict[str, Any] = {"ignore_eos": True, "min_tokens": 4}
        attempts: list[dict[str, Any]] = [
            {**forced, "stream_options": usage},
            {"stream_options": usage},
            forced,
            {},
        ]
        failure: Exception | None = None
        for extra in attempts:
            try:
                chunks = list(_events(self._post(text, **options, **extra)))
            except (Refused, NoAnswer) as error:
                failure = error
                continue
            with_usage = [c for c in chunks if c.get("choices") and (c.get("usage") or {}).get("completion_tokens")]
            return "ignore_eos" in extra, len(with_usage) > 1
        raise BackendStartError(f"it does not stream completions: {failure}", where=name) from failure


def _events(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.decode("utf-8", "replace").splitlines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data.startswith("{"):
            value = json.loads(data)
            if isinstance(value, dict):
                yield value


def _probe_counts(ask: _Asker, max_len: int | None) -> tuple[tuple[str, int], ...]:
    """A short and a long prompt, as many words as ``_probe_words`` says, and the server's counts; () if it does not
    say."""
    maker = PromptMaker(salt=os.urandom(8).hex())
    found = []
    try:
        for index, words in enumerate(_probe_words(max_len)):
            text = maker.text(index, words)
            count = ask.prompt_tokens(text)
            if count is None:
                return ()
            found.append((text, count))
    except (Refused, NoAnswer, ValueError):
        return ()
    return tuple(found)


def _probe_words(max_len: int | None) -> tuple[int, int]:
    return 64, min(512, max(96, (max_len or 2048) // 2))


def _calibrate(probes: tuple[tuple[str, int], ...]) -> tuple[float, int, str]:
    """Words a token and tokens added to every prompt, from two prompts of different length.

    The server's count is taken to be linear in the number of words: ``tokens = overhead + words x slope``.
    """
    if len(probes) < 2:
        return 1.0, 0, "assumed"
    (few, many), (short, long) = (count for _, count in probes), (len(text.split()) for text, _ in probes)
    if many <= few:
        return 1.0, 0, "assumed"
    slope = (many - few) / (long - short)
    overhead = max(0, round(few - slope * short))
    if abs(slope - 1.0) < _EXACT and overhead == 0:
        return 1.0, 0, "one word is one token"
    return 1.0 / slope, overhead, "calibrated against usage"
