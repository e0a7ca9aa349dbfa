"""Locust's own page, used as a library: our start form and SLO tab in it, its tables alive, its doors shut.

What it says of the run's state is ours (``web.runs``): Locust's runner itself never starts a test. Its CORS headers,
which let any site read the page, its debug mode and the routes that change user classes are left out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from pdbench.load import shape  # before locust.web: imports locust without its patches

from flask import Response, abort, jsonify, redirect, request, session, url_for  # isort: skip
from flask_login import UserMixin, current_user, login_user  # type: ignore[import-untyped]  # isort: skip
from gevent import Timeout, sleep  # isort: skip
from jinja2 import ChoiceLoader, DictLoader  # isort: skip
from locust.env import Environment  # isort: skip
from locust.web import WebUI  # isort: skip

from pdbench.errors import PdbenchError, UsageError
from pdbench.web import tab
from pdbench.web.fields import Asked, Preset, arguments, explain, extra_options
from pdbench.web.guard import HEADERS, Account, Door, refusal
from pdbench.web.runs import Runs

Check = Callable[[str, list[str]], Asked]
_OPEN = frozenset({"locust.login", "locust.send_assets", "pdbench.login"})
_SHUT = ("locust.update_user", "locust.request_stats_full_history_csv")
CHECK_S = 120.0
"""How long checking a form may take: each ``pdserve check`` has a minute."""
_WRONG_S = 0.5  # how long a wrong password takes

assert shape.VERSION


class Page(WebUI):
    """Locust's page for our runs. ``flask``: its Flask application."""

    def __init__(self, environment: Environment, host: str, port: int, runs: Runs, preset: Preset, login: bool) -> None:
        self._runs = runs
        self._preset = preset
        environment.locustfile = "pdbench"
        with patch("locust.web.CORS", lambda _: None):
            super().__init__(environment, host, port, web_login=login, delayed_start=True)
        app: Any = self.app
        app.debug = False
        app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the form has its fields in our order
        self.flask: Any = app

    def update_template_args(self) -> None:
        """What the page is made of. Locust would parse our command line for the options of a form here."""
        with patch("locust.argument_parser.ui_extra_args_dict", dict):
            super().update_template_args()  # type: ignore[no-untyped-call]
        self.template_args |= {
            "state": locust_state(self._runs.state),
            "hide_common_options": True,
            "missing_host_warning": False,
            "extra_options": extra_options(self._runs.form or self._preset.defaults()),
            "extended_tabs": tab.TABS,
            "extended_tables": tab.TABLES,
            "extended_csv_files": [
                {"href": "/pdbench/report", "title": "pdbench: report"},
                {"href": "/pdbench/download/parquet", "title": "pdbench: raw records (Parquet, zip)"},
                {"href": "/pdbench/download/json", "title": "pdbench: summary (JSON)"},
            ],
        }


def locust_state(state: str) -> str:
    """Ours in the words that Locust's page knows."""
    return "running" if state == "stopping" else state


def install(
    page: Page,
    runs: Runs,
    preset: Preset,
    check: Check,
    aside: Callable[..., Any],
    account: Account | None,
    door: Door,
) -> None:
    """Replace Locust's views by ours and guard all of them. ``aside``: calls a function in another thread."""
    app, views = page.flask, page.flask.view_functions

    def swarm() -> Response:
        form = request.form.to_dict()
        try:
            runs.start(form, lambda: _in_time(lambda: aside(check, arguments(form, preset))))
        except PdbenchError as error:
            return jsonify({"success": False, "message": explain(error), "host": ""})
        except Exception as error:  # Locust's form shows a message, and nothing of an answer without one
            return jsonify({"success": False, "message": f"{type(error).__name__}: {error}", "host": ""})
        return jsonify({"success": True, "message": "started", "host": ""})

    def stop() -> Response:
        runs.stop()
        return jsonify({"success": True, "message": "Test stopped"})

    locusts_stats = views["locust.request_stats"]

    def stats() -> Any:
        answer = app.make_response(locusts_stats())
        if not answer.is_json:
            return answer
        screen = runs.look()
        news = screen.news(screen.last) if screen is not None else None
        in_flight = sum(arm["in_flight"] for arm in news["arms"] if arm["state"] == "running") if news else 0
        return jsonify(
            answer.get_json()
            | {"state": locust_state(runs.state), "user_count": in_flight, "extended_stats": tab.stats(news)}
        )

    def logs() -> Response:
        return jsonify({"master": runs.screen.lines() if runs.screen is not None else [], "workers": {}})

    for name, view in {"swarm": swarm, "stop": stop, "request_stats": stats, "logs": logs}.items():
        views[f"locust.{name}"] = view
    for name in _SHUT:
        views[name] = lambda **_: abort(404)
    _dress(app)
    _guard(page, account, door)


def _in_time(check: Callable[[], Asked]) -> Asked:
    """A file or a program that never answers must not shut the form for ever: its thread is left behind."""
    late = UsageError(f"the check took longer than {CHECK_S:g} s", remedy="look at the files that are named")
    with Timeout(CHECK_S, late):
        return check()


def _dress(app: Any) -> None:
    """Our title, a link to the live page, and no fields that mean nothing here."""
    text, _, _ = app.jinja_loader.get_source(app.jinja_env, "index.html")
    dressed = text.replace("<title>Locust</title>", "<title>pdbench · Locust</title>").replace(
        "</body>", f"{_DRESS}</body>"
    )
    app.jinja_loader = ChoiceLoader([DictLoader({"index.html": dressed}), app.jinja_loader])


_DRESS = """\
<style>
  .MuiFormControl-root:has(input[name=userCount]), .MuiFormControl-root:has(input[name=spawnRate]),
  .MuiFormControl-root:has(input[name=host]), .MuiAccordion-root:has(input[name=runTime]), a[href*="aka.ms"] {
    display: none !important;
  }
  main { padding-bottom: 44px; }
  #pdbench-live {
    position: fixed; left: 12px; bottom: 5px; z-index: 1200; padding: 4px 14px; border-radius: 99px;
    font: 600 13px/1.6 system-ui, sans-serif; color: #fff; background: #15803d; text-decoration: none;
  }
</style>
<a id="pdbench-live" href="/pdbench">pdbench: live charts</a>
<script>
  new MutationObserver(() => {
    for (const head of document.querySelectorAll(".MuiAccordionSummary-root")) {
      if (head.textContent.trim() === "Custom parameters" && !head.dataset.opened) {
        head.dataset.opened = "1";
        if (head.getAttribute("aria-expanded") !== "true") head.click();
      }
    }
  }).observe(document.getElementById("root"), {childList: true, subtree: true});
</script>
"""
"""Locust folds its custom parameters away; here they are the form."""


class _User(UserMixin):  # type: ignore[misc,unused-ignore]
    id = "pdbench"


def _guard(page: Page, account: Account | None, door: Door) -> None:
    """Every request is looked at before any view sees it, and every answer gets its headers."""
    app = page.flask
    app.secret_key = secrets.token_bytes(32)  # sessions end with the process
    app.config.update(
        SESSION_COOKIE_NAME=f"pdbench-{page.port}", SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SAMESITE="Strict"
    )

    def before() -> Any:
        if why := refusal(request.method, dict(request.headers), door):
            return Response(why, 403, mimetype="text/plain")
        if request.path == "/favicon.ico":
            return Response(status=204)
        if account is None or request.endpoint in _OPEN or current_user.is_authenticated:
            return None
        if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return redirect(url_for("locust.login"))
        return Response("log in first", 401, mimetype="text/plain")

    def after(answer: Response) -> Response:
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if "max-age" not in answer.headers.get("Cache-Control", ""):
            answer.headers["Cache-Control"] = "no-store"
        return answer

    app.before_request(before)
    app.after_request(after)
    if account is not None:
        page.login_manager.user_loader(lambda id_: _User() if id_ == _User.id else None)
        page.auth_args = {"username_password_callback": "/pdbench/login"}
        app.add_url_rule("/pdbench/login", "pdbench.login", lambda: _login(account), methods=["POST"])


def _login(account: Account) -> Any:
    if account.admits(request.form.get("username", ""), request.form.get("password", "")):
        session.clear()
        login_user(_User())
        return redirect(url_for("locust.index"))
    sleep(_WRONG_S)
    session["auth_error"] = "Unknown user or wrong password."
    return redirect(url_for("locust.login"))
