"""Backends: names, files and URLs; every complaint says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdbench import resources
from pdbench.errors import UsageError
from pdbench.target.backend import clean_url, load_backend, resolve_backend


@pytest.mark.parametrize("name", resources.names("backend"))
def test_shipped_backends_are_good(name: str) -> None:
    found = resolve_backend(name)
    assert found.name == name
    assert found.devices == (1 if name == "example-url" else 2)
    assert found.simulated == (name == "two-queues")


def test_pdserve_facts() -> None:
    found = resolve_backend("disaggregated")
    assert found.engine == "pdserve"
    assert found.max_model_len == 4096
    assert found.started_by_us
    assert found.checked["model"]["dtype"] == "bfloat16"


def test_name_and_url() -> None:
    found = resolve_backend("mine=http://127.0.0.1:8000/v1/")
    assert (found.name, found.base_url, found.engine) == ("mine", "http://127.0.0.1:8000", "openai")
    assert not found.started_by_us


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("dissaggregated", "did you mean 'disaggregated'?"),
        ("nothing-like-it-at-all", "known: "),
        ("./missing.yaml", "no such file"),
        ("http://127.0.0.1:8000", "a URL needs a name"),
        ("a=127.0.0.1:8000", "bad URL"),
        ("a=ftp://host", "bad URL"),
        ("a=http://host:port", "bad URL"),
        ("a=http://host:99999", "bad URL"),
        ("a b=http://host", "bad arm name"),
        ("=http://host", "bad arm name"),
        ("a=http://host/?q=1", "has no query"),
    ],
)
def test_bad_text(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_backend(text)
    assert what in str(caught.value)


OPENAI = "name: x\nengine: openai\nbase_url: http://127.0.0.1:1\n"
PDSERVE = "name: x\nengine: pdserve\nmodel: {preset: llama-10m}\nworkers:\n  - {role: mixed, device: 0}\n"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (OPENAI.replace("openai", "opnai"), ":2: engine", "did you mean 'openai'?"),
        (OPENAI + "lunch: [a]\n", ":4: lunch", "did you mean 'launch'?"),
        (OPENAI + "devices: 0\n", ":4: devices", "must be at least 1"),
        (OPENAI + "api: soap\n", ":4: api", "invalid enum value"),
        (OPENAI + "launch: vllm serve\n", ":4: launch", "expected `array`"),
        (OPENAI + "ready_timeout_s: -1\n", ":4: ready_timeout_s", "must be above 0"),
        (OPENAI.replace(":1\n", ":{port}\n"), ":3: base_url", "'launch'"),
        (OPENAI.replace("http://127.0.0.1:1", "localhost"), ":3: base_url", "bad URL"),
        ("name: x\nengine: openai\n", ":1", "the key 'base_url' is missing"),
        (OPENAI.replace("name: x", "name: x/y"), ":1: name", "bad arm name"),
        (PDSERVE.replace("mixed", "mixd"), ":5: workers[0].role", "mixd"),
        (PDSERVE + "wrkers: []\n", ":6: wrkers", "did you mean 'workers'?"),
        (PDSERVE.replace("llama-10m", "llama-11m"), ":3: model.preset", "llama-11m"),
        (PDSERVE.replace("preset: llama-10m", "path: /nowhere/at/all"), ":3: model.path", "/nowhere/at/all"),
        (PDSERVE.replace("device: 0", "device: 0, max_batch: 0"), ":5: workers[0].max_batch", "at least 1"),
        (PDSERVE.replace("mixed", "prefill"), ":4: workers", "no decode worker"),
        ("name: x\nengine: pdserve\n", ":1", "workers"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, where: str, what: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_backend(path)
    assert caught.value.where.startswith(f"{path}{where}")
    assert what in str(caught.value)


def test_engine_defaults_to_what_the_keys_say(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nbase_url: http://127.0.0.1:1\n")
    assert load_backend(path).engine == "openai"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://h:1/", "http://h:1"),
        ("https://h/v1", "https://h"),
        ("http://h:1/proxy/v1/", "http://h:1/proxy"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_clean_url(url: str, clean: str) -> None:
    assert clean_url(url, where="") == clean


@pytest.mark.parametrize(
    "text", ["a=http://me:hush@host", "http://me:hush@host", "http://me:hush@host?k=v", "a=http://me:hu/sh@h:port"]
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="no user or password") as caught:
        resolve_backend(text)
    assert "hu" not in str(caught.value).replace("http", "")
    assert "--api-key-env" in caught.value.remedy
