"""What is refused, what is reported, what is only warned about, and what nobody knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pdbench.errors import UsageError
from pdbench.fairness import ArmFacts, Fairness, Finding, device_kinds, facts_of, outcomes, preflight, together

HASH = "46d4b89fb4b32b1a8eaa7aa824c604cfc7fe6d40e880ad9063f8bf8a393f2c28"
A = ArmFacts(
    "a",
    devices=2,
    device_kinds=("cpu", "cpu"),
    model_hash=HASH,
    dtype="bfloat16",
    max_model_len=4096,
    forced_output=True,
    kv_bytes=1 << 30,
)
B = replace(A, name="b")


def test_alike_is_fair() -> None:
    found = preflight([A, B])
    assert found == Fairness()
    found.check(unfair_ok=False)
    assert found.lines() == []


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("devices", 1, "the arms differ in their number of devices (a: 2, b: 1)"),
        ("device_kinds", ("cpu", "cuda"), "the arms differ in their kind of device (a: cpu+cpu, b: cpu+cuda)"),
        ("model_hash", "f" * 64, f"the arms differ in their model (a: {HASH[:12]}, b: ffffffffffff)"),
        ("dtype", "float32", "the arms differ in their number format (a: bfloat16, b: float32)"),
        ("max_model_len", 2048, "the arms differ in their maximum length (a: 4096, b: 2048)"),
        ("forced_output", False, "the arms differ in their forced output lengths (a: yes, b: no)"),
        ("kv_bytes", 1 << 29, "the arms differ in their KV memory (a: 1073741824, b: 536870912)"),
    ],
)
def test_every_difference_of_configuration_is_refused(key: str, value: Any, shown: str) -> None:
    found = preflight([A, replace(B, **{key: value})])
    assert [(one.kind, one.key, one.message) for one in found.findings] == [("refusal", key, shown)]
    with pytest.raises(UsageError, match="unfair comparison") as caught:
        found.check(unfair_ok=False)
    assert found.findings[0].remedy in caught.value.remedy
    assert "--unfair-ok" in caught.value.remedy
    found.check(unfair_ok=True)
    assert found.lines() == [f"UNFAIR: {shown}"]


@pytest.mark.parametrize(
    "key", ["devices", "device_kinds", "model_hash", "dtype", "max_model_len", "forced_output", "kv_bytes"]
)
def test_an_unknown_fact_is_not_checked_and_not_refused(key: str) -> None:
    unknown: dict[str, Any] = {key: None}
    found = preflight([A, replace(B, **unknown)])
    assert [(one.kind, one.key) for one in found.findings] == [("not checked", key)]
    assert "of b" in found.findings[0].message
    found.check(unfair_ok=False)
    assert found.lines()[0].startswith("not checked: ")


def test_two_known_arms_are_compared_though_a_third_is_silent() -> None:
    found = preflight([A, replace(B, dtype="float32"), replace(B, name="c", dtype=None)])
    assert [one.kind for one in found.findings] == ["refusal", "not checked"]


def test_nobody_knows() -> None:
    found = preflight([ArmFacts("x"), ArmFacts("y")])
    assert {one.kind for one in found.findings} == {"not checked"}
    assert len(found.findings) == 7
    found.check(unfair_ok=False)


def test_all_refusals_come_at_once() -> None:
    found = preflight([A, replace(B, devices=1, dtype="float32")])
    with pytest.raises(UsageError) as caught:
        found.check(unfair_ok=False)
    assert "devices" in caught.value.message
    assert "number format" in caught.value.message


def test_one_arm_is_always_fair() -> None:
    assert preflight([ArmFacts("x", untuned_chunked=True)]) == Fairness()


def test_an_untuned_chunked_baseline_is_warned_about() -> None:
    found = preflight([replace(A, untuned_chunked=True), B])
    assert [(one.kind, one.key, one.remedy) for one in found.findings] == [("warning", "tuned", "pdbench tune a")]
    found.check(unfair_ok=False)


def test_shared_devices_are_warned_about() -> None:
    assert [one.key for one in preflight([A, replace(B, shared_devices=True)]).of("warning")] == ["shared_devices"]


@pytest.mark.parametrize(
    ("key", "values", "reported"),
    [
        ("tokens_per_chunk", (1.0, 1.005), False),
        ("tokens_per_chunk", (1.0, 1.5), True),
        ("cache_hit_rate", (0.0, 0.0), False),
        ("cache_hit_rate", (0.0, 0.4), True),
        ("prompt_tokens_reported", (512.0, 514.0), False),
        ("prompt_tokens_reported", (512.0, 530.0), True),
        ("prompt_tokens_reported", (512.0, None), False),
    ],
)
def test_outcomes_are_reported_never_refused(key: str, values: tuple[Any, Any], reported: bool) -> None:
    found = outcomes({"a": {key: values[0]}, "b": {key: values[1]}})
    assert [one.kind for one in found.findings] == ["report"] * reported
    found.check(unfair_ok=False)


def test_lines_put_the_gravest_first() -> None:
    found = together(
        Fairness((Finding("not checked", "x", "n"), Finding("report", "x", "r"))),
        Fairness((Finding("warning", "x", "w"), Finding("refusal", "x", "f"))),
    )
    assert found.lines() == ["UNFAIR: f", "w", "r", "not checked: n"]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["cpu:1", "cpu:0"], ("cpu", "cpu")),
        (["cuda:0"], ("cuda",)),
        (["emulated:a100-80g/opt-13b"], ("emulated:a100-80g/opt-13b",)),
    ],
)
def test_device_kinds(names: list[str], kinds: tuple[str, ...]) -> None:
    assert device_kinds(names) == kinds


PRINT = {"engine": "pdserve", "devices": 2, "device_names": ["cpu:0", "cpu:1"], "model_hash": HASH, "dtype": "bfloat16",
         "max_model_len": 4096}  # fmt: skip


def worker(policy: str, kv_bytes: int | None = 1 << 29) -> dict[str, Any]:
    return {"policy": policy, "kv_bytes": kv_bytes}


def test_facts_of_a_reference_arm() -> None:
    checked = {"workers": [worker("prefill_first"), worker("prefill_first")], "shared_devices": False}
    assert facts_of("a", PRINT, checked=checked, data={}, forced_output=True) == A


@pytest.mark.parametrize(
    ("policy", "data", "untuned"),
    [
        ("chunked", {}, True),
        ("chunked", {"tuned": "2026-01-01, chat"}, False),
        ("prefill_first", {}, False),
    ],
)
def test_who_must_be_tuned(policy: str, data: dict[str, Any], untuned: bool) -> None:
    assert facts_of("a", PRINT, checked={"workers": [worker(policy)]}, data=data).untuned_chunked is untuned


def test_kv_memory_is_known_only_if_every_worker_says() -> None:
    checked = {"workers": [worker("chunked"), worker("chunked", None)]}
    assert facts_of("a", PRINT, checked=checked).kv_bytes is None


def test_a_server_that_is_not_ours() -> None:
    """Its device count is a default unless its YAML says it; hash, dtype and KV memory nobody knows."""
    foreign = {"engine": "openai", "devices": 1, "device_names": [], "max_model_len": 4096}
    found = facts_of("v", foreign, data={"base_url": "http://127.0.0.1:1"}, forced_output=False)
    assert found == ArmFacts("v", max_model_len=4096, forced_output=False)
    assert facts_of("v", {**foreign, "devices": 2}, data={"devices": 2}).devices == 2
    assert [one.key for one in preflight([A, found]).of("refusal")] == ["forced_output"]
