"""The main job on the reference engine, small: three arms, one document, proof of separation."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import psutil
import pytest
import yaml

from pdbench import schema
from tests.e2e.browser import OpenPage, assert_charts_drawn
from tests.e2e.transcript import ROOT, Desk, Typed, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ARMS = ("colocated-chunked", "colocated", "disaggregated")
PROMPT, OUTPUT, MEASURED, WARM = 96, 12, 8, 3
WORKLOAD = f"""\
name: small
arrivals: {{process: poisson, rate: 6}}
prompt_tokens: {{distribution: fixed, value: {PROMPT}}}
output_tokens: {{distribution: fixed, value: {OUTPUT}}}
num_requests: {MEASURED}
warmup: {WARM}
slo: ["ttft p90 <= 5s", "tpot p90 <= 1s", "tbt p90 <= 1s"]
"""


def small_backends(folder: Path) -> list[str]:
    """The shipped backends with the small model in fp32."""
    paths = []
    for name in ARMS:
        data = yaml.safe_load((ROOT / "backends" / f"{name}.yaml").read_text())
        data["model"] = {"preset": "llama-10m", "dtype": "float32", "seed": 0}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data))
        paths.append(str(path))
    (folder / "small.yaml").write_text(WORKLOAD)
    return paths


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Typed, Path, list[str]]:
    folder = tmp_path_factory.mktemp("compare")
    desk = Desk()
    del desk.env["PDBENCH_NO_REPORT"]
    typed = desk.type(
        *("compare", *small_backends(folder), "--workload", str(folder / "small.yaml"), "--pairs", "1"),
        *("-o", str(folder / "out"), "--json"),
        deadline_s=240,
    )
    return typed, folder, desk.leftovers()


@pytest.fixture
def document(compared: tuple[Typed, Path, list[str]]) -> dict[str, Any]:
    return compared[0].document


@pytest.fixture
def stored(compared: tuple[Typed, Path, list[str]]) -> Path:
    return compared[1] / "out" / str(compared[0].document["run"])


def test_it_ends_well(compared: tuple[Typed, Path, list[str]], document: dict[str, Any]) -> None:
    typed, _, leftovers = compared
    assert typed.code == (0 if document["validity"]["status"] == "VALID" else 12), typed
    assert not leftovers


def test_the_document(document: dict[str, Any]) -> None:
    jsonschema.validate(document, schema.load("compare"))
    assert tuple(document["arms"]) == ARMS
    for name, arm in document["arms"].items():
        requests = arm["requests"]
        assert requests["scheduled"] == requests["ok"] + requests["failed"] == MEASURED
        assert requests["ok"] == MEASURED, "a healthy server fails no request"
        assert requests["warmup"] == WARM
        assert document["fingerprint"]["arms"][name]["model_hash"]
        assert document["fingerprint"]["arms"][name]["prompt_token_source"] == "one word is one token"
        assert len(arm["device_busy"]) == 2
    hashes = {arm["model_hash"] for arm in document["fingerprint"]["arms"].values()}
    assert len(hashes) == 1, "one model in every arm"


def test_one_pair_gives_no_verdict(document: dict[str, Any]) -> None:
    assert {item["base"] for item in document["comparisons"]} == {"colocated-chunked"}
    assert {item["verdict"] for item in document["comparisons"]} == {"not resolved"}
    assert all(item["interval"] is None for item in document["comparisons"])


def test_prompts_and_outputs_have_the_planned_length(stored: Path) -> None:
    requests = pd.read_parquet(stored / "requests.parquet")
    assert len(requests) == len(ARMS) * (MEASURED + WARM)
    assert (requests["prompt_tokens"] == PROMPT).all()
    assert (requests["output_tokens"] == OUTPUT).all()
    tokens = pd.read_parquet(stored / "tokens.parquet")
    assert tokens["n_tokens"].sum() == len(requests) * OUTPUT


def tokens_by_worker(stored: Path, arm: str) -> list[tuple[int, int]]:
    """(prefill tokens, decode tokens) of each worker, from its own step log."""
    steps = pd.read_parquet(stored / "steps.parquet")
    mine = steps[steps["arm"] == arm].groupby("worker")
    prefilled, decoded = mine["prefill_tokens"].sum(), mine["decode_tokens"].sum()
    return list(zip(prefilled.tolist(), decoded.tolist(), strict=True))


def test_separation_happened(document: dict[str, Any], stored: Path) -> None:
    assert tokens_by_worker(stored, "disaggregated") == [
        ((MEASURED + WARM) * PROMPT, 0),
        (0, (MEASURED + WARM) * (OUTPUT - 1)),
    ]
    assert all(prefilled > 0 and decoded > 0 for prefilled, decoded in tokens_by_worker(stored, "colocated"))

    handoff = document["arms"]["disaggregated"]["handoff"]
    assert handoff["transfers"] == MEASURED + WARM
    lifecycles = pd.read_parquet(stored / "server.parquet")
    crossed = lifecycles[lifecycles["arm"] == "disaggregated"]
    per_token = crossed["kv_bytes"] / crossed["prompt_tokens"]
    assert per_token.nunique() == 1
    assert handoff["bytes"] == crossed["kv_bytes"].sum() == per_token.iloc[0] * PROMPT * (MEASURED + WARM)
    assert "handoff" not in document["arms"]["colocated"]
    assert document["arms"]["disaggregated"]["separation"]["status"] == "proven"
    assert document["arms"]["colocated"]["separation"]["status"] == "not available"
    assert document["arms"]["disaggregated"]["handoff_split"]["parts_ms"]["transfer"]["p90"] > 0
    assert "interference" in document["arms"]["colocated-chunked"]
    assert "warnings" not in document["arms"]["disaggregated"]


def test_client_and_server_stamps_agree(stored: Path) -> None:
    """What the client saw cannot precede what the server did; both use one clock."""
    requests = pd.read_parquet(stored / "requests.parquet").set_index("request_id")
    server = pd.read_parquet(stored / "server.parquet").set_index("request_id")
    joined = requests.join(server[["arrive_ns", "prefill_end_ns"]], how="inner")
    assert len(joined) == len(requests), "every request is found by its X-Request-Id"
    assert (joined["arrive_ns"] >= joined["sent_ns"]).all()
    first = pd.read_parquet(stored / "tokens.parquet").groupby(["arm", "pair", "index"])["t_ns"].min()
    seen = joined.set_index(["arm", "pair", "index"])
    assert (first.reindex(seen.index) >= seen["prefill_end_ns"].astype("int64")).all()


def test_manifest_and_plan(document: dict[str, Any], stored: Path) -> None:
    manifest = json.loads((stored / "manifest.json").read_text())
    jsonschema.validate(manifest, schema.load("manifest"))
    assert manifest["salt_nonce"]
    assert manifest["config"]["base"] == "colocated-chunked"
    assert manifest["declared"] == document["declared"] == json.loads((stored / "declared.json").read_text())
    assert (stored / "declared.json").stat().st_mtime < (stored / "requests.parquet").stat().st_mtime
    assert len(pd.read_parquet(stored / "plan.parquet")) == MEASURED + WARM
    assert document["run"] == stored.name
    assert (stored / "latency.hlog").exists()


def test_the_page(
    compared: tuple[Typed, Path, list[str]], stored: Path, open_page: OpenPage, page_requests: list[str]
) -> None:
    assert f"report: {stored / 'report.html'}" in compared[0].err
    page = open_page(offline=True)
    page.goto((stored / "report.html").as_uri())
    assert_charts_drawn(page, at_least=11)  # and the two surfaces of a VALID run
    assert page_requests == [(stored / "report.html").as_uri()]
    assert "could not be made" not in page.inner_text("main")
    assert "No prefill runs on the devices that decode" in page.inner_text("#stalls") or "no stall to explain" in (
        page.inner_text("#stalls")
    )


def test_the_table(compared: tuple[Typed, Path, list[str]], stored: Path) -> None:
    typed = Desk().type("report", str(stored))
    assert typed.code == 0
    valid = compared[0].document["validity"]["status"] == "VALID"
    judged = ("✓ met", "not resolved") if valid else ("INVALID, no verdict",)
    for words in (*ARMS, "joint attainment", *judged, "proven", "dispatch lag P99", "validity"):
        assert words in typed.out, typed


def test_progress_is_told(compared: tuple[Typed, Path, list[str]]) -> None:
    err = compared[0].err
    assert "declared: base colocated-chunked, against it colocated, disaggregated; primary metric joint_att" in err
    assert "its token budget was not tuned" in err
    for arm in ARMS:
        assert f"{arm}: starting, log in" in err
        assert f"{arm}: ready at http://127.0.0.1:" in err
        assert f"{arm} pair 1/1 complete {MEASURED + WARM}/{MEASURED + WARM}" in err


def test_interrupted_while_starting(tmp_path: Path) -> None:
    desk = Desk()
    paths = small_backends(tmp_path)
    process = desk.start("compare", *paths, "--workload", str(tmp_path / "small.yaml"), "-o", str(tmp_path / "out"))
    until(lambda: any("pdserve serve" in line for line in desk.leftovers()), "a server")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert out == ""
    assert not desk.leftovers()


def workers_of(desk: Desk) -> list[psutil.Process]:
    """The running worker processes of this desk's servers."""
    return [process for process in desk.processes() if "pdserve.worker" in process.cmdline()]


def test_a_worker_that_dies_mid_run_is_told_and_replaced(tmp_path: Path) -> None:
    desk = Desk()
    paths = small_backends(tmp_path)
    load = WORKLOAD.replace(f"num_requests: {MEASURED}", "num_requests: 24").replace("rate: 6", "rate: 8")
    load = load.replace(f"warmup: {WARM}", "warmup: 0")
    (tmp_path / "small.yaml").write_text(load)
    with desk.fake(tmp_path) as url:  # a neighbour that starts at once
        process = desk.start(
            *("compare", paths[1], f"fake={url}", "--workload", str(tmp_path / "small.yaml"), "--pairs", "2"),
            *("-o", str(tmp_path / "out"), "--json", "--unfair-ok"),
        )
        until(lambda: list((tmp_path / "out").glob("*/journal-0-colocated.bin")), "the first run", 90)
        until(lambda: (next((tmp_path / "out").glob("*/journal-0-colocated.bin"))).stat().st_size > 200, "requests")
        workers_of(desk)[0].kill()
        out, err = process.communicate(timeout=200)
    document = json.loads(out)
    arms = document["arms"]
    died = [name for name, arm in arms.items() if "server_died" in arm]
    assert died == ["colocated"], err
    assert "colocated: started again" in err
    for arm in arms.values():
        assert arm["requests"]["scheduled"] == arm["requests"]["ok"] + arm["requests"]["failed"] == 48
    assert not desk.leftovers()
