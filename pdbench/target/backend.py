"""What an arm is: a backend YAML of ours, somebody else's server to launch, or a URL that already answers.

    resolve_backend("disaggregated")                    a shipped YAML
    resolve_backend("./mine.yaml")                      a file
    resolve_backend("vllm=http://127.0.0.1:8000")       a running server, named

A pdserve YAML is judged by pdserve itself (``python -m pdserve check``): the harness knows only the door, and
turns each complaint into file, line and key.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from pdbench import resources
from pdbench.errors import PdbenchError, UsageError, did_you_mean
from pdbench.yamlfile import YamlDoc, convert, read

ENGINES = ("pdserve", "openai")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_CHECK_TIMEOUT_S = 60.0


class OpenAIFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A backend YAML with ``engine: openai``. ``launch`` left out means: it is already running."""

    name: str
    base_url: str
    engine: Literal["openai"] = "openai"
    description: str = ""
    model: str | None = None
    api: Literal["completions", "chat"] = "completions"
    api_key_env: str | None = None
    launch: tuple[str, ...] = ()
    ready_path: str | None = None
    ready_timeout_s: float = 600.0
    devices: int = 1
    extra_body: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError("devices: must be at least 1")
        if not self.ready_timeout_s > 0:
            raise ValueError("ready_timeout_s: must be above 0")
        if "{port" in self.base_url and not self.launch:
            raise ValueError("base_url: {port} is only known to a server that 'launch' starts")


@dataclass(frozen=True, slots=True)
class Backend:
    """One arm, resolved and checked. ``checked`` is what ``pdserve check`` said of it (pdserve only). ``source``: the
    checkout whose pdserve is run, and in which ``launch`` is started; ``None``: this one."""

    name: str
    engine: Literal["pdserve", "openai"]
    path: Path | None
    data: dict[str, Any]
    devices: int = 1
    base_url: str | None = None
    launch: tuple[str, ...] = ()
    model: str | None = None
    api: Literal["completions", "chat"] = "completions"
    api_key_env: str | None = None
    ready_path: str | None = None
    ready_timeout_s: float = 600.0
    extra_body: dict[str, Any] = field(default_factory=dict)
    simulated: bool = False
    checked: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def started_by_us(self) -> bool:
        return self.engine == "pdserve" or bool(self.launch)

    @property
    def max_model_len(self) -> int | None:
        """Known before the start for pdserve only."""
        value = self.checked.get("model", {}).get("max_len")
        return int(value) if value is not None else None


def resolve_backend(text: str) -> Backend:
    """A shipped name, a YAML file or ``NAME=URL``. Raises ``UsageError``."""
    if "://" in text and "@" in text:
        clean_url(text, where="BACKEND")
    if "=" in text and not text.endswith((".yaml", ".yml")):
        name, url = text.split("=", 1)
        return url_backend(name, url)
    if text.startswith(("http://", "https://")):
        raise UsageError(f"a URL needs a name: '{text}'", remedy=f"write it as NAME=URL, e.g. mine={text}")
    return load_backend(resources.find("backend", text))


def url_backend(name: str, url: str, *, model: str | None = None) -> Backend:
    """A server that already runs. Raises ``UsageError`` for a bad name or URL."""
    check_name(name, where=f"{name}=URL")
    return Backend(
        name=name,
        engine="openai",
        path=None,
        data={"name": name, "engine": "openai", "base_url": url},
        base_url=clean_url(url, where=f"{name}={url}"),
        model=model,
    )


def load_backend(path: Path, source: Path | None = None) -> Backend:
    """Read and check one YAML, by the pdserve of the checkout ``source`` if one is given. Raises ``UsageError`` with
    file:line and key."""
    doc = read(path)
    engine = doc.data.get("engine", "openai" if "base_url" in doc.data else "pdserve")
    if engine not in ENGINES:
        raise UsageError(
            f"unknown engine '{engine}'", where=doc.where("engine"), remedy=did_you_mean(str(engine), ENGINES)
        )
    return _load_openai(doc, source) if engine == "openai" else _load_pdserve(doc, source)


def _load_openai(doc: YamlDoc, source: Path | None) -> Backend:
    parsed = convert(doc, OpenAIFile)
    check_name(parsed.name, where=doc.where("name"))
    url = clean_url(re.sub(r"\{port\d*\}", "1", parsed.base_url), where=doc.where("base_url"))
    return Backend(
        name=parsed.name,
        engine="openai",
        path=doc.path,
        data=doc.data,
        devices=parsed.devices,
        base_url=parsed.base_url.rstrip("/").removesuffix("/v1") if "{port" in parsed.base_url else url,
        launch=parsed.launch,
        model=parsed.model,
        api=parsed.api,
        api_key_env=parsed.api_key_env,
        ready_path=parsed.ready_path,
        ready_timeout_s=parsed.ready_timeout_s,
        extra_body=parsed.extra_body,
        source=source,
    )


def _load_pdserve(doc: YamlDoc, source: Path | None) -> Backend:
    if doc.path is None:
        raise UsageError("a pdserve backend must be a file")
    said = _check_pdserve(doc.path, source)
    if not said.get("ok"):
        raise _complaint(doc, said.get("errors") or [{"path": [], "message": "not valid"}])
    check_name(str(said["name"]), where=doc.where("name"))
    return Backend(
        name=str(said["name"]),
        engine="pdserve",
        path=doc.path,
        data=doc.data,
        devices=int(said["device_count"]),
        simulated=bool(said.get("simulated", False)),
        checked=said,
        ready_timeout_s=180.0,
        source=source,
    )


def _complaint(doc: YamlDoc, errors: list[dict[str, Any]]) -> UsageError:
    first = errors[0]
    more = [
        f"{doc.where(*error['path'])}: {error['message']}" if error["path"] else str(error["message"])
        for error in errors[1:]
    ]
    remedy = "\n  ".join([text for text in [str(first.get("remedy") or ""), *more] if text])
    return UsageError(str(first["message"]), where=doc.where(*first["path"]), remedy=remedy)


def _check_pdserve(path: Path, source: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "pdserve", "check", str(path), "--json"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_CHECK_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=resources.subprocess_env(source),
            check=False,
        )
        said = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise PdbenchError("pdserve check did not answer", where=str(path)) from error
    except ValueError as error:
        tail = "\n  ".join(done.stderr.strip().splitlines()[-5:])
        raise PdbenchError("pdserve check failed", where=str(path), remedy=tail) from error
    if not isinstance(said, dict):
        raise PdbenchError("pdserve check did not answer with an object", where=str(path))
    return said


def check_name(name: str, *, where: str) -> None:
    """An arm's name goes into file names, table heads and JSON keys."""
    if not _NAME.match(name):
        raise UsageError(
            f"bad arm name '{name}'", where=where, remedy="letters, digits, dots, dashes and underscores only"
        )


def clean_url(url: str, *, where: str) -> str:
    """``http://host:port`` without a trailing ``/`` or ``/v1``. Raises ``UsageError``."""
    if "@" in url:  # what stands before it may be a secret, and goes into no message, page or file
        remedy = "put the key into an environment variable: --api-key-env VAR, or api_key_env in a backend's YAML"
        raise UsageError("a base URL has no user or password", where=where.partition("=")[0], remedy=remedy)
    remedy = "expected http://HOST:PORT, e.g. http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"bad URL '{url}': {error}", where=where, remedy=remedy) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError(f"bad URL '{url}'", where=where, remedy=remedy)
    if parts.query or parts.fragment:
        raise UsageError(f"a base URL has no query: '{url}'", where=where, remedy=remedy)
    return url.rstrip("/").removesuffix("/v1")
