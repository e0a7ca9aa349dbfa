"""``pdbench web`` by HTTP, against a server that is not ours: a run, an edit, a stop, downloads, a lost worker.

Counts and words are asserted, not latencies: this machine may be busy.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import zipfile
from pathlib import Path

import psutil
import pytest

from tests.e2e.transcript import Desk, tiny, until
from tests.e2e.webdesk import form, summary_of, web

pytestmark = pytest.mark.e2e


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_run_from_the_form_to_its_files(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with desk.fake(tmp_path) as url, web(desk, "-o", str(out), folder=tmp_path) as page:
        assert page.news() == {"number": 0, "state": "ready"}
        bad = page.post("/swarm", form(url, tiny(tmp_path), rate="-1"))
        assert (bad["success"], bad["message"]) == (False, "Rate: rate must be greater than 0, got -1")
        assert page.news()["state"] == "ready"
        assert not out.exists()

        assert page.post("/swarm", form(url, tiny(tmp_path), num_requests="100"))["success"]
        news = page.await_news(lambda news: news["state"] == "running" and news["arms"][0]["ended"] > 5, "some ended")
        again = page.post("/swarm", form(url, tiny(tmp_path)))
        assert (again["success"], "a run is in progress" in again["message"]) == (False, True)
        assert (news["rate"], news["reasons"]) == ({"now": 20.0, "editable": True}, [])
        assert news["arms"][0]["objectives"][0]["text"] == "ttft p90 <= 2s"
        stats = page.get("/stats/requests").json()
        assert stats["state"] == "running"
        rows = {row["figure"]: row for row in stats["extended_stats"][0]["data"]}
        assert rows["TTFT"]["p90"].endswith(" ms")
        assert rows["ttft p90 <= 2s"]["share"]
        assert page.get("/pdbench/report").status_code == 404

        assert not page.post("/pdbench/rate", {"rate": "-3"})["success"]
        assert page.post("/pdbench/rate", {"rate": "200"})["success"]
        until(lambda: page.get("/stats/requests").json()["stats"][-1]["num_requests"] > 40, "Locust's tables")
        ended = page.await_news(lambda news: news["state"] == "stopped", "the end")
        arm = ended["arms"][0]
        assert (arm["done"], arm["ended"], ended["points"]["0"]["due"][-1]) == (arm["total"], 100, arm["total"])

        summary = json.loads(page.get("/pdbench/download/json").text)
        assert summary == json.loads(summary_of(out).read_text())
        assert summary["arms"]["server"]["requests"]["scheduled"] == 100
        (edit,) = summary["edits"]
        assert (edit["arm"], edit["pair"], edit["factor"], edit["rate"]) == ("server", 0, 10.0, 200.0)
        reasons = [reason["message"] for reason in summary["validity"]["reasons"]]
        assert any("the rate was edited while it ran" in reason for reason in reasons), reasons
        manifest = json.loads(summary_of(out).with_name("manifest.json").read_text())
        assert manifest["edits"] == summary["edits"]
        assert manifest["argv"][:2] == ["pdbench", "run"]
        packed = zipfile.ZipFile(io.BytesIO(page.get("/pdbench/download/parquet").content))
        assert {Path(name).name for name in packed.namelist()} >= {"requests.parquet", "tokens.parquet", "plan.parquet"}
        assert "INVALID" in page.get("/pdbench").text
        assert page.get("/pdbench/report").text.lstrip().startswith("<!doctype html>")
    assert not desk.leftovers()


def test_a_stop_and_an_end_keep_what_was_measured(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with desk.fake(tmp_path) as url, web(desk, "-o", str(out), folder=tmp_path) as page:
        assert page.post("/swarm", form(url, tiny(tmp_path), num_requests="5000"))["success"]
        page.await_news(lambda news: news["state"] == "running" and news["arms"][0]["ended"] > 3, "some ended")
        assert page.post("/pdbench/stop")["success"]
        page.await_news(lambda news: news["state"] == "stopped", "the end")
        stopped = json.loads(summary_of(out).read_text())
        assert stopped["validity"]["status"] == "INVALID"
        assert page.get("/pdbench/download/json").json() == stopped
        assert not page.post("/pdbench/stop")["success"]

        assert page.post("/swarm", form(url, tiny(tmp_path), num_requests="5000", seed="1"))["success"]
        page.await_news(lambda news: news["number"] == 2 and news["arms"][0]["ended"] > 3, "some of the second ended")
        assert page.end(signal.SIGINT) == 0
        assert "being stored" in page.said
    assert not desk.leftovers()
    assert len(list(out.glob("*/summary.json"))) == 2
    for path in out.glob("*/summary.json"):
        assert "interrupted" in json.dumps(json.loads(path.read_text())["validity"])


def test_two_workers_and_one_that_is_lost(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with desk.fake(tmp_path) as url, web(desk, "-o", str(out), "--processes", "2", folder=tmp_path) as page:
        until(lambda: page.get("/worker-count").json()["worker_count"] == 2, "two workers")
        assert page.post("/swarm", form(url, tiny(tmp_path), num_requests="200"))["success"]
        page.await_news(lambda news: news["state"] == "running" and news["arms"][0]["ended"] > 5, "some ended")
        workers = page.get("/stats/requests").json()["workers"]
        assert [worker["state"] for worker in workers] == ["ready", "ready"]
        assert page.post("/pdbench/rate", {"rate": "10"})["success"], "told to both"
        victim = next(one for one in desk.processes() if "worker" in one.cmdline())
        os.kill(victim.pid, signal.SIGKILL)
        news = page.await_news(
            lambda news: any(str(victim.pid) in one for one in news["reasons"]), "the lost one, named"
        )
        assert news["state"] == "running", "the other goes on"
        rows = page.get("/stats/requests").json()["extended_stats"][0]["data"]
        until(lambda: str(victim.pid) in str(page.get("/stats/requests").json()["extended_stats"]), "the tab names it")
        assert rows[-1]["figure"] == "validity"
        page.post("/pdbench/stop")
        page.await_news(lambda news: news["state"] == "stopped", "the end")
        until(lambda: page.said.count("is there") == 3, "another one in its place")
        assert f"local worker {victim.pid}: the process was killed by signal 9" in page.said
        assert f"/{victim.pid}" in json.dumps(json.loads(summary_of(out).read_text())["validity"])
    assert not desk.leftovers()
    assert not psutil.pid_exists(victim.pid) or psutil.Process(victim.pid).status() == psutil.STATUS_ZOMBIE


def test_what_it_does_not_start_with(desk: Desk, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = desk.type("web", "--web-port", str(taken.getsockname()[1]))
    assert (busy.code, "choose another with --web-port" in busy.err) == (2, True)
    login = desk.type("web", "--web-login")
    assert (login.code, "PDBENCH_WEB_PASSWORD" in login.err) == (2, True)
    key = desk.type("web", "--api-key-env", "KEY")
    assert (key.code, "needs --base-url" in key.err) == (2, True)


def test_a_login_over_http(desk: Desk, tmp_path: Path) -> None:
    with web(desk, "--web-login", PDBENCH_WEB_USER="me", PDBENCH_WEB_PASSWORD="secret") as page:
        assert page.get("/pdbench/live.json").status_code == 401
        assert "/pdbench/login" in page.get("/pdbench", headers={"Accept": "text/html"}).text
        assert page.get("/", headers={"Host": "evil.example"}).status_code == 403
        assert "secret" not in page.said
