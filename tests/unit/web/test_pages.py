"""Locust's page and ours as a browser would get them, without a server: headers, doors, login, escapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from pdbench.load import shape  # noqa: F401 - imports locust without its patches

from pdbench.errors import UsageError  # isort: skip
from pdbench.web.crew import PageCrew
from pdbench.web.fields import Preset
from pdbench.web.guard import Account, Door
from pdbench.web.locustui import Page, install
from pdbench.web.runs import Runs
from pdbench.web.screen import Ending, Screen
from pdbench.web.views import blueprint
from tests.unit.web.played import BAD, asked

US = {"Host": "127.0.0.1:8089"}


def aside(function: Any, args: tuple[Any, ...] = ()) -> Any:
    return function(*args)


def refuse(kind: str, args: list[str]) -> Any:
    raise UsageError(f"no such thing {BAD}", where="--rate", remedy="give\n  one")


@pytest.fixture(scope="module")
def crew() -> Iterator[PageCrew]:
    found = PageCrew(None, lambda text: None)
    yield found
    found.close()


def client(
    crew: PageCrew, account: Account | None = None, host: str = "127.0.0.1", check: Any = refuse
) -> tuple[Any, Runs]:
    runs = Runs(crew, lambda text: None)
    page = Page(crew.environment, host, 8089, runs, Preset(api_key_env="MY_KEY"), login=account is not None)
    install(page, runs, Preset(), check, aside, account, Door.of(host, login=account is not None))
    page.flask.register_blueprint(blueprint(runs, aside))
    return page.flask.test_client(), runs


def test_locusts_page_has_our_form_and_nothing_of_the_environment(
    crew: PageCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    monkeypatch.setattr("sys.argv", ["pdbench", "web", "--api-key-env", "MY_KEY"])
    browser, runs = client(crew)
    runs.form = {"rate": BAD}
    answer = browser.get("/", headers=US)
    text = answer.text
    assert answer.status_code == 200
    assert "sk-very-secret" not in text
    assert "MY_KEY" not in text
    assert BAD not in text
    assert "\\u003cscript\\u003e" in text
    assert text.index('"backends"') < text.index('"baseURL"') < text.index('"workload"') < text.index('"rate"')
    assert 'href="/pdbench"' in text
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("get", "/", {"Host": "evil.example"}, 403),
        ("get", "/pdbench/live.json", {"Host": "evil.example"}, 403),
        ("get", "/pdbench/live.json", {"Origin": "http://evil.example"}, 200),
        ("post", "/swarm", {"Origin": "http://evil.example"}, 403),
        ("post", "/stop", {"Origin": "http://evil.example"}, 403),
        ("post", "/pdbench/stop", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("post", "/pdbench/rate", {"Origin": "null"}, 403),
        ("post", "/pdbench/stop", {"Origin": "http://127.0.0.1:8089"}, 200),
        ("post", "/user", {}, 404),
        ("get", "/stats/requests", {}, 200),
        ("get", "/logs", {}, 200),
        ("get", "/tasks", {}, 200),
        ("get", "/exceptions", {}, 200),
        ("get", "/pdbench", {}, 200),
        ("get", "/pdbench/report", {}, 404),
        ("get", "/pdbench/download/json", {}, 404),
        ("get", "/pdbench/download/passwd", {}, 404),
        ("get", "/pdbench/download/..%2f..%2fpasswd", {}, 404),
        ("get", "/pdbench/static/bokeh.min.js", {}, 200),
        ("get", "/pdbench/static/other.js", {}, 404),
        ("get", "/assets/..%2findex.html", {}, 404),
    ],
)
def test_doors(crew: PageCrew, method: str, path: str, headers: dict[str, str], status: int) -> None:
    browser, _ = client(crew)
    answer = getattr(browser, method)(path, headers=US | headers)
    answer.close()
    assert answer.status_code == status
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_a_bad_form_is_told_in_the_form(crew: PageCrew) -> None:
    browser, runs = client(crew)
    answer = browser.post("/swarm", headers=US, data={"backends": "x", "rate": "y"})
    assert answer.json == {"success": False, "host": "", "message": f"Rate: no such thing {BAD}. give one"}
    assert browser.post("/swarm", headers=US, data={}).json["message"].startswith("Backends: nothing to measure")
    assert runs.state == "ready"
    assert not browser.post("/pdbench/rate", headers=US, data={"rate": "fast"}).json["success"]
    assert browser.get("/pdbench/live.json", headers=US).json == {"number": 0, "state": "ready"}


def test_whatever_fails_in_a_form_is_told_in_the_form(crew: PageCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kind: str, args: list[str]) -> Any:
        raise RecursionError("odd")

    browser, _ = client(crew, check=fail)
    answer = browser.post("/swarm", headers=US, data={"backends": "x"})
    assert (answer.status_code, answer.json["success"]) == (200, False)
    assert answer.json["message"] == "RecursionError: odd"

    monkeypatch.setattr("pdbench.web.locustui.CHECK_S", 0.01)
    browser, runs = client(crew, check=lambda kind, args: gevent.sleep(30))
    answer = browser.post("/swarm", headers=US, data={"backends": "x"})
    assert answer.json["message"].startswith("the check took longer than 0.01 s"), answer.json
    assert runs.state == "ready"
    assert browser.post("/swarm", headers=US, data={}).json["message"].startswith("Backends:"), "it is free again"


def test_off_loopback_an_unknown_name_is_refused(crew: PageCrew) -> None:
    browser, _ = client(crew, host="0.0.0.0")
    assert browser.get("/pdbench/live.json", headers={"Host": "evil.example"}).status_code == 403
    assert browser.get("/pdbench/live.json", headers={"Host": "10.0.0.7"}).status_code == 200


def test_texts_of_a_run_are_escaped(crew: PageCrew, tmp_path: Path) -> None:
    browser, runs = client(crew)
    runs.screen = screen = Screen(1, asked())
    screen.arms[0].name = BAD
    screen.event(BAD)
    for ending in (None, Ending(error=BAD), Ending(document_with(BAD), tmp_path)):
        screen.ending = ending
        text = browser.get("/pdbench", headers=US).text
        assert "alert(1)" in text
        assert "<script>alert" not in text
    assert browser.get("/stats/requests", headers=US).json["state"] == "stopped"
    assert browser.get("/stats/requests", headers=US).json["extended_stats"][0]["data"][0]["arm"] == BAD
    assert browser.get("/logs", headers=US).json["master"][0].endswith(BAD)


def document_with(text: str) -> dict[str, Any]:
    invalid = {"status": "INVALID", "reasons": [{"message": text, "remedy": text}]}
    arm = {"requests": {"ok": 1, "failed": 0}, "validity": invalid, "warnings": [text]}
    return {"arms": {text: arm}, "validity": invalid, "sentence": text, "slo": [text], "warnings": [text]}


def test_with_a_login_every_door_is_shut(crew: PageCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.web.locustui._WRONG_S", 0)
    browser, _ = client(crew, Account("me", "secret"))
    for path in ("/", "/pdbench", "/pdbench/report", "/stats/requests", "/logs"):
        answer = browser.get(path, headers=US | {"Accept": "text/html"})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/login"), path
    for path in ("/pdbench/live.json", "/stats/requests", "/pdbench/download/json"):
        assert browser.get(path, headers=US | {"Accept": "application/json"}).status_code == 401, path
    for path in ("/swarm", "/stop", "/pdbench/stop", "/pdbench/rate", "/stats/reset"):
        assert browser.post(path, headers=US).status_code == 401, path
    page = browser.get("/login", headers=US)
    assert page.status_code == 200
    assert "/pdbench/login" in page.text
    assert "secret" not in page.text

    def login(user: str, password: str) -> Any:
        return browser.post("/pdbench/login", headers=US, data={"username": user, "password": password})

    wrong = login("me", "Secret")
    assert wrong.headers["Location"] == "/login"
    assert "wrong password" in browser.get("/login", headers=US).text
    assert browser.get("/pdbench/live.json", headers=US).status_code == 401
    right = login("me", "secret")
    assert right.headers["Location"] == "/"
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert browser.get("/pdbench/live.json", headers=US).status_code == 200
    assert browser.get("/", headers=US).status_code == 200
    other, _ = client(crew, Account("me", "secret"))
    other.set_cookie(cookie.split("=")[0], cookie.split("=", 1)[1].split(";")[0], domain="127.0.0.1")
    assert other.get("/pdbench/live.json", headers=US).status_code == 401, "another start has another secret"


def test_a_form_is_kept_for_who_comes_later(crew: PageCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.web.runs.threading.Thread.start", lambda self: None)
    browser, runs = client(crew)
    runs.start({"rate": "7", "SLO": "errors <= 1%"}, lambda: asked())
    text = browser.get("/", headers=US).text
    assert '"state": "running"' in text
    assert '"default_value": "7"' in text
    assert '"default_value": "errors \\u003c= 1%"' in text
