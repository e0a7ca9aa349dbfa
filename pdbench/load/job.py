"""What one load engine is asked to do: the job, complete and checked before a process is started.

The steering process sends it to the engine as one line of JSON. It holds the plan (instants relative to t0,
lengths), how to make prompts, where to send them and when to give up. It never holds a secret: the name of
an environment variable travels, its value does not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from pdbench.errors import UsageError
from pdbench.workload.prompts import PromptMaker

Api = Literal["completions", "chat"]
ClockChoice = Literal["auto", "kernel", "user"]

_OPTIONAL = ("segments", "texts", "prompt_ids")
_PATHS: dict[Api, str] = {"completions": "/completions", "chat": "/chat/completions"}


class Endpoint(msgspec.Struct, frozen=True):
    """Where requests go: ``host`` as a socket wants it, ``path`` of the API, TLS or not."""

    host: str
    port: int
    tls: bool
    path: str

    @property
    def authority(self) -> str:
        """The Host header: an IPv6 address in brackets, the port unless it is the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


def endpoint(base_url: str, api: Api) -> Endpoint:
    """Split ``http://host:port[/prefix][/v1]``. Raises UsageError when it is not such a URL."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"'{base_url}' is not a URL: {error}", where="--base-url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"'{base_url}' is not an http:// or https:// URL",
            where="--base-url",
            remedy="write it like http://127.0.0.1:8000",
        )
    if parts.username or parts.query or parts.fragment:
        raise UsageError(
            "the base URL must not hold a user, a query or a fragment",
            where="--base-url",
            remedy="name the variable that holds the API key with --api-key-env",
        )
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/")
    if not prefix.endswith("/v1"):
        prefix += "/v1"
    return Endpoint(host=parts.hostname, port=port or (443 if tls else 80), tls=tls, path=prefix + _PATHS[api])


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One plan against one server. ``scheduled_ns`` are offsets from t0, which is told after READY.

    ``index`` are the plan's own indexes (they seed the prompts), parallel to the other lists.
    ``request_timeout_s`` counts from a request's scheduled instant; ``drain_timeout_s`` from the last
    scheduled arrival. ``max_concurrency`` bounds the requests in flight; a request that waits for a slot
    is late, and its latency says so. ``concurrency`` makes a closed loop instead: (from this offset in ns, keep
    so many streams open), in order; a request is due when a stream is free. ``segments``: for each request the
    pieces (id, tokens) at its prompt's start that it shares with whoever names the same id; ``texts``: for each
    request a prompt as it is to be sent; ``prompt_ids``: the same as token ids, for the completions API. Raises
    ValueError for a plan that does not fit together.
    """

    base_url: str
    api: Api = "completions"
    model: str
    api_key_env: str | None = None
    clock: ClockChoice = "auto"
    prompts: PromptMaker
    index: list[int]
    scheduled_ns: list[int]
    prompt_tokens: list[int]
    output_tokens: list[int]
    warmup: list[bool]
    ignore_eos: bool = True
    temperature: float = 0.0
    continuous_usage: bool = False
    extra_body: dict[str, Any] = {}  # msgspec copies an empty default
    drain_timeout_s: float = 60.0
    request_timeout_s: float = 120.0
    max_concurrency: int | None = None
    concurrency: list[tuple[int, int]] = []
    segments: list[list[tuple[int, int]]] = []
    texts: list[str] = []
    prompt_ids: list[list[int]] = []
    journal: str
    run_id: str

    def __post_init__(self) -> None:
        n = len(self.index)
        if n == 0:
            raise ValueError("the plan is empty: no request to send")
        self._check_lengths(n)
        if self.scheduled_ns[0] < 0 or any(b < a for a, b in pairwise(self.scheduled_ns)):
            raise ValueError("scheduled_ns must not decrease and must start at 0 or later")
        if min(self.prompt_tokens) < 1 or min(self.output_tokens) < 1:
            raise ValueError("prompt_tokens and output_tokens must be at least 1")
        if len(set(self.index)) != n:
            raise ValueError("index has an entry twice")
        for name in ("drain_timeout_s", "request_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name):g}")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {self.max_concurrency}")
        if not self.run_id.isprintable() or not self.run_id.isascii() or " " in self.run_id or not self.run_id:
            raise ValueError("run_id must be printable ASCII without blanks: it travels in a header")
        if self.prompt_ids and self.api != "completions":
            raise UsageError("the chat API takes no token ids", where="--prompt-ids", remedy="use --api completions")
        where = endpoint(self.base_url, self.api)
        if self.clock == "kernel" and where.tls:
            raise UsageError(
                "kernel receive stamps need plain TCP, the base URL is https",
                where="--clock kernel",
                remedy="use --clock auto, or reach the server over http",
            )

    def _check_lengths(self, n: int) -> None:
        """Every list is parallel to ``index``; the optional ones may be empty."""
        for name in ("scheduled_ns", "prompt_tokens", "output_tokens", "warmup", *_OPTIONAL):
            have = len(getattr(self, name))
            if have != n and (have or name not in _OPTIONAL):
                raise ValueError(f"{name} has {have} entries, index has {n}")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def endpoint(self) -> Endpoint:
        return endpoint(self.base_url, self.api)
