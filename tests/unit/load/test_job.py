"""Jobs that do not fit together are refused before anything starts; request bytes are what servers expect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pdbench.errors import UsageError
from pdbench.load.body import BodyMaker, api_key
from pdbench.load.job import Job, endpoint
from pdbench.workload.prompts import PromptMaker


def job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "base_url": "http://127.0.0.1:8000",
        "model": "m",
        "prompts": PromptMaker(salt="s"),
        "index": [10, 11],
        "scheduled_ns": [0, 5],
        "prompt_tokens": [4, 6],
        "output_tokens": [2, 3],
        "warmup": [True, False],
        "journal": "j",
        "run_id": "run",
    }
    return Job(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"index": [], "scheduled_ns": []}, "empty"),
        ({"index": [1, 1]}, "twice"),
        ({"warmup": [True]}, "warmup has 1 entries, index has 2"),
        ({"scheduled_ns": [5, 0]}, "must not decrease"),
        ({"scheduled_ns": [-1, 0]}, "start at 0"),
        ({"prompt_tokens": [0, 1]}, "at least 1"),
        ({"output_tokens": [1, 0]}, "at least 1"),
        ({"drain_timeout_s": 0.0}, "drain_timeout_s must be greater than 0"),
        ({"request_timeout_s": float("nan")}, "request_timeout_s must be greater than 0"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"run_id": "a b"}, "run_id"),
        ({"run_id": "a\r\nX: y"}, "run_id"),
        ({"run_id": ""}, "run_id"),
    ],
)
def test_a_job_that_does_not_fit_together(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        job(**changes)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"base_url": "127.0.0.1:8000"}, "--base-url"),
        ({"base_url": "ftp://h"}, "--base-url"),
        ({"base_url": "http://u:p@h"}, "--base-url"),
        ({"base_url": "http://h?x=1"}, "--base-url"),
        ({"base_url": "http://h:99999"}, "--base-url"),
        ({"base_url": "http://"}, "--base-url"),
        ({"base_url": "https://h", "clock": "kernel"}, "--clock kernel"),
    ],
)
def test_a_place_that_cannot_be_reached(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        job(**changes)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("url", "path", "authority"),
    [
        ("http://127.0.0.1:8000", "/v1/completions", "127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "/v1/completions", "127.0.0.1:8000"),
        ("http://h/v1", "/v1/completions", "h"),
        ("https://h/proxy/v1/", "/proxy/v1/completions", "h"),
        ("https://h:8443/proxy", "/proxy/v1/completions", "h:8443"),
        ("http://[::1]:9", "/v1/completions", "[::1]:9"),
    ],
)
def test_endpoints(url: str, path: str, authority: str) -> None:
    where = endpoint(url, "completions")
    assert (where.path, where.authority) == (path, authority)
    assert endpoint(url, "chat").path == path.replace("completions", "chat/completions")


def test_a_job_travels_as_json_and_unknown_keys_do_not() -> None:
    data = msgspec.json.encode(job(extra_body={"top_k": 1}))
    assert msgspec.json.decode(data, type=Job) == job(extra_body={"top_k": 1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data.replace(b'"api"', b'"apo"'), type=Job)


def test_request_bytes() -> None:
    head, _, body = BodyMaker(job(), "key").make(1).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/completions HTTP/1.1"
    assert "Authorization: Bearer key" in lines
    assert "X-Request-Id: run-11" in lines
    assert f"Content-Length: {len(body)}" in lines
    fields = json.loads(body)
    assert len(fields["prompt"].split()) == 6
    assert fields["max_tokens"] == 3
    assert fields["stream"] is True
    assert fields["stream_options"] == {"include_usage": True}
    assert fields["ignore_eos"] is True


def test_chat_bytes_and_options() -> None:
    maker = BodyMaker(
        job(api="chat", continuous_usage=True, ignore_eos=False, extra_body={"top_k": 1, "temperature": 0.5})
    )
    head, _, body = maker.make(0).partition(b"\r\n\r\n")
    assert b"Authorization" not in head
    fields = json.loads(body)
    assert [m["role"] for m in fields["messages"]] == ["user"]
    assert fields["stream_options"]["continuous_usage_stats"] is True
    assert "ignore_eos" not in fields
    assert (fields["top_k"], fields["temperature"]) == (1, 0.5)


@pytest.mark.parametrize("value", [None, "", " ", "a\nb", "ключ"])
def test_a_key_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("PD_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("PD_TEST_KEY", value)
    with pytest.raises(UsageError, match="PD_TEST_KEY"):
        api_key("PD_TEST_KEY")
    assert api_key(None) == ""
