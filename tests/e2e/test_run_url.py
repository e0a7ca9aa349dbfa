"""``pdbench run`` and ``compare`` against servers that are not ours."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from pdbench import schema
from tests.e2e.transcript import FAKE, Desk, Type, brief, tiny, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_run_a_url(desk: Desk, type_here: Type, tmp_path: Path) -> None:
    with desk.fake(tmp_path, "--tokens-per-word", "1.3", "--overhead", "6", "--role-chunk") as url:
        typed = desk.type(
            *("run", "--base-url", url, "--model", "fake", "--name", "mine"),
            *("--workload", tiny(tmp_path, warmup="2")),
            *("-o", str(tmp_path / "out"), "--json"),
        )
    assert typed.code == 0, typed
    document = typed.document
    jsonschema.validate(document, schema.load("run"))
    assert document["validity"]["status"] == "VALID"
    arm = document["arms"]["mine"]
    assert arm["requests"] == {"scheduled": 20, "ok": 20, "failed": 0, "warmup": 2}
    assert document["fingerprint"]["arms"]["mine"]["prompt_token_source"] == "calibrated against usage"
    assert 4.0 < arm["ttft_ms"]["p50"] < 500, "the role-only chunk must not count as a first token"

    folder = tmp_path / "out" / document["run"]
    manifest = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(manifest, schema.load("manifest"))
    assert json.loads((folder / "summary.json").read_text()) == document
    requests = pd.read_parquet(folder / "requests.parquet")
    assert (requests["planned_prompt_tokens"] == 32).all()
    assert requests["prompt_tokens"].between(31, 34).all()
    assert not list(folder.glob("journal*"))

    report = type_here("report", str(folder))
    assert report.code == 0
    assert "✓ met" in report.out
    assert type_here("report", str(folder), "--json").document == document


def test_chat_api_and_a_server_without_usage(desk: Desk, type_here: Type, tmp_path: Path) -> None:
    with desk.fake(tmp_path, "--no-usage", "--no-health", "--refuse-extra") as url:
        typed = type_here(
            *("run", "--base-url", url, "--api", "chat", "--workload", brief(tmp_path)),
            *("-o", str(tmp_path), "--json", "-q"),
        )
    assert typed.ended(0), typed
    arm = typed.document["arms"]["server"]
    assert arm["requests"]["ok"] == 20
    assert any("no usage" in text for text in arm["warnings"])
    assert typed.err.startswith("results: "), "-q leaves only where the results are"


def test_compare_two_urls(desk: Desk, tmp_path: Path) -> None:
    with desk.fake(tmp_path) as quick, desk.fake(tmp_path, "--ttft-ms", "60") as slow:
        typed = desk.type(
            *("compare", f"quick={quick}", f"slow={slow}", "--workload", brief(tmp_path), "--pairs", "3"),
            *("--slo", "ttft p90 <= 45ms", "-o", str(tmp_path), "--json", "--fail-on", "worse"),
        )
    document = typed.document
    jsonschema.validate(document, schema.load("compare"))
    verdicts = {c["metric"]: c["verdict"] for c in document["comparisons"]}
    if document["validity"]["status"] == "VALID":
        assert typed.code == 10, typed
        assert verdicts["joint_attainment"] == "worse"
        assert verdicts["ttft_p90"] == "worse"
        assert document["sentence"].startswith("At 40 req/s quick meets the SLO more often than slow")
    else:  # a busy machine: no verdict, and the exit code says so
        assert typed.code == 12, typed
    assert document["pairs"] == 3


def test_unfair_arms_are_refused_unless_asked_for(desk: Desk, type_here: Type, tmp_path: Path) -> None:
    with desk.fake(tmp_path, "--max-model-len", "2048") as short, desk.fake(tmp_path, "--refuse-extra") as free:
        asked = ["compare", f"short={short}", f"free={free}", "--workload", brief(tmp_path), "--pairs", "1"]
        refused = type_here(*asked, "-o", str(tmp_path / "none"), "--json")
        told = type_here(*asked, "--unfair-ok", "-o", str(tmp_path / "out"), "--json")
    assert refused.code == 2, refused
    assert refused.out == ""
    for words in ("maximum length (short: 2048, free: 4096)", "forced output lengths", "--unfair-ok"):
        assert words in refused.err
    assert told.code in (0, 12), told
    assert sum(text.startswith("UNFAIR: ") for text in told.document["warnings"]) == 2


def test_failed_requests_are_misses(desk: Desk, type_here: Type, tmp_path: Path) -> None:
    with desk.fake(tmp_path, "--fail-every", "2") as url:
        typed = type_here(
            *("run", f"mine={url}", "--workload", brief(tmp_path), "-o", str(tmp_path), "--json"),
            *("--slo", "errors <= 1%", "--slo", "ttft p90 <= 2s", "--fail-on", "slo"),
        )
    document = typed.document
    counts = document["arms"]["mine"]["requests"]
    assert counts["ok"] + counts["failed"] == counts["scheduled"] == 20
    assert counts["failed"] == 10
    assert document["arms"]["mine"]["ttft_ms"]["p90"] is None
    assert document["arms"]["mine"]["attainment"]["joint"] == 0.5
    assert typed.ended(10), typed


def launched(folder: Path, *flags: str) -> str:
    path = folder / "fake.yaml"
    command = " ".join([sys.executable, str(FAKE), "--port", "{port}", *flags])
    path.write_text(
        f"name: fake\nengine: openai\nbase_url: http://127.0.0.1:{{port}}\nlaunch: ['{command}']\nready_timeout_s: 30\n"
    )
    return str(path)


def test_a_launched_server_that_dies_mid_run(desk: Desk, tmp_path: Path) -> None:
    typed = desk.type(
        *("run", launched(tmp_path, "--die-after", "12"), "--workload", brief(tmp_path)),
        *("-o", str(tmp_path), "--json"),
    )
    document = typed.document
    arm = document["arms"]["fake"]
    assert arm["requests"]["scheduled"] == 20, "the rest of the plan is still offered"
    assert arm["requests"]["failed"] >= 10
    assert arm["server_died"]["pairs"] == [0]
    assert "fake server: out of memory, really" in arm["server_died"]["last_lines"]
    assert typed.ended(0), typed
    assert (tmp_path / document["run"] / "requests.parquet").exists()
    assert not desk.leftovers()


def test_interrupted(desk: Desk, tmp_path: Path) -> None:
    process = desk.start(
        *("run", launched(tmp_path), "--workload", brief(tmp_path, num_requests="2000")),
        *("-o", str(tmp_path / "out"), "--json"),
    )
    until(lambda: list((tmp_path / "out").glob("*/journal*")), "the load")
    until(lambda: any(path.stat().st_size > 1000 for path in (tmp_path / "out").glob("*/journal*")), "requests")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["validity"]["status"] == "INVALID"
    assert "interrupted" in document["validity"]["reasons"][0]["message"]
    assert document["arms"]["fake"]["requests"]["ok"] > 0
    assert json.loads((tmp_path / "out" / document["run"] / "summary.json").read_text()) == document
    assert not desk.leftovers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(desk: Desk, tmp_path: Path, number: signal.Signals) -> None:
    process = desk.start(
        "run", launched(tmp_path), "--workload", brief(tmp_path, num_requests="2000"), "-o", str(tmp_path / "out")
    )
    until(lambda: list((tmp_path / "out").glob("*/journal*")), "the load")
    process.send_signal(number)
    process.communicate(timeout=60)
    until(lambda: not desk.leftovers(), "the end of every process")


def test_a_server_that_died_is_started_again_before_its_next_run(desk: Desk, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    arms = []
    for folder, flags in ((first, ()), (second, ("--die-after", "12"))):
        folder.mkdir()
        path = Path(launched(folder, *flags))
        path.write_text(path.read_text().replace("name: fake", f"name: {folder.name}"))
        arms.append(str(path))
    typed = desk.type(*("compare", *arms, "--workload", brief(tmp_path), "--pairs", "2", "-o", str(tmp_path), "--json"))
    document = typed.document
    assert document["arms"]["second"]["server_died"]["pairs"] == [0, 1]
    assert document["arms"]["second"]["requests"]["ok"] > 0, "the second run was offered to a fresh server"
    assert "server_died" not in document["arms"]["first"]
    assert "second: started again" in typed.err
    assert not desk.leftovers()


def test_a_closed_loop_with_real_prompts(desk: Desk, type_here: Type, tmp_path: Path) -> None:
    """Three streams for a second; the texts of the file arrive as they are, and the manifest says what that means."""
    lines = [json.dumps({"prompt": " ".join(["word"] * n)}) for n in range(5, 45)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    with desk.fake(tmp_path) as url:
        typed = type_here(
            *("run", "--base-url", url, "--workload", brief(tmp_path), "--arrivals", "closed", "--concurrency", "3"),
            *("--duration", "1s", "--prompts", str(tmp_path / "prompts.jsonl"), "-o", str(tmp_path), "--json"),
        )
    assert typed.code in (0, 12), typed
    document = typed.document
    jsonschema.validate(document, schema.load("run"))
    folder = tmp_path / document["run"]
    manifest = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(manifest, schema.load("manifest"))
    assert manifest["planned_prompt_tokens"] == "words"
    assert any("closed loop" in note for note in manifest["notes"])
    assert "note: closed loop" in typed.err
    requests = pd.read_parquet(folder / "requests.parquet")
    assert document["arms"]["server"]["requests"]["failed"] == 0
    assert 3 < len(requests) < 300
    assert (requests["prompt_tokens"] >= requests["planned_prompt_tokens"]).all()
    assert requests.loc[~requests["warmup"], "prompt_tokens"].between(5, 44).all()
