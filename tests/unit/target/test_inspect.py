"""What is read out of a server's answers: calibration and abilities, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdbench.errors import BackendStartError, UsageError
from pdbench.target import inspect
from pdbench.target.backend import url_backend
from pdbench.target.http import NoAnswer, Refused
from pdbench.workload.prompts import PromptMaker


class Server:
    """Answers as ``fetch`` does."""

    def __init__(self, *, slope: float = 1.0, overhead: int = 0, usage: bool = True, refuse: str = "") -> None:
        self.slope, self.overhead, self.usage, self.refuse = slope, overhead, usage, refuse

    def __call__(self, url: str, *, body: dict[str, Any] | None = None, **_: Any) -> bytes:
        if url.endswith("/v1/models"):
            return json.dumps({"data": [{"id": "m", "max_model_len": 2048}]}).encode()
        assert body is not None
        if self.refuse and self.refuse in body:
            raise Refused(400, "unknown parameter")
        if not body.get("stream"):
            tokens = round(len(body["prompt"].split()) * self.slope) + self.overhead
            return json.dumps({"choices": [], "usage": {"prompt_tokens": tokens} if self.usage else None}).encode()
        chunk: dict[str, Any] = {"choices": [{"text": "a"}]}
        lines = []
        for index in range(4):
            counted = {"usage": {"completion_tokens": index + 1}} if self.usage else {}
            lines.append("data: " + json.dumps(chunk | counted))
        return "\n\n".join([*lines, "data: [DONE]"]).encode()


def facts(monkeypatch: pytest.MonkeyPatch, server: Server, model: str | None = None) -> inspect.Facts:
    monkeypatch.setattr(inspect, "fetch", server)
    monkeypatch.setattr(inspect, "fetch_json", lambda url, **more: json.loads(server(url, **more)))
    return inspect.inspect(url_backend("x", "http://127.0.0.1:1", model=model), "http://127.0.0.1:1")


@pytest.mark.parametrize(("slope", "overhead"), [(1.0, 0), (1.3, 0), (1.3, 21), (0.8, 4), (2.0, 1)])
def test_calibrated_prompts_have_the_planned_length(
    monkeypatch: pytest.MonkeyPatch, slope: float, overhead: int
) -> None:
    found = facts(monkeypatch, Server(slope=slope, overhead=overhead))
    maker = PromptMaker(salt="s", words_per_token=found.words_per_token, overhead_tokens=found.overhead_tokens)
    for wanted in (64, 200, 511):
        counted = len(maker.text(0, wanted).split()) * slope + overhead
        assert counted == pytest.approx(wanted, abs=max(1.0, slope))


def test_a_server_that_counts_words_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    found = facts(monkeypatch, Server())
    assert (found.words_per_token, found.overhead_tokens) == (1.0, 0)
    assert found.prompt_token_source == "one word is one token"
    assert found.continuous_usage
    assert found.ignore_eos
    assert not found.warnings


def test_a_server_without_usage_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = facts(monkeypatch, Server(usage=False))
    assert found.prompt_token_source == "assumed"
    assert not found.continuous_usage
    assert any("no usage" in text for text in found.warnings)


def test_a_server_that_refuses_ignore_eos(monkeypatch: pytest.MonkeyPatch) -> None:
    found = facts(monkeypatch, Server(refuse="ignore_eos"))
    assert not found.ignore_eos
    assert found.continuous_usage
    assert any("ignore_eos" in text for text in found.warnings)


def test_a_server_that_refuses_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendStartError, match="does not stream"):
        facts(monkeypatch, Server(refuse="model"))


def test_unknown_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean 'm'"):
        facts(monkeypatch, Server(), model="mm")


def test_silent_admin_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(url: str, **_: Any) -> dict[str, Any]:
        raise NoAnswer(url)

    monkeypatch.setattr(inspect, "fetch_json", silent)
    assert inspect.admin("http://127.0.0.1:1", "state") == {}
