"""Plain ``locust``: what its options and its web form come to, without a web server."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from pdbench.load import shape  # noqa: F401 - imports locust without its patches

from pdbench import locustfile  # isort: skip


class Form:
    """Locust's web UI: it arms a timer for the run time that was typed."""

    def __init__(self) -> None:
        self.armed = False
        self.after: list[Any] = []
        self.app = SimpleNamespace(after_request=self.after.append)

    def _cancel_run_time_timer(self) -> None:
        self.armed = False


def conductor(run_time: int | None, form: Form | None) -> tuple[Any, Any]:
    hook = SimpleNamespace(add_listener=lambda _: None)
    environment = SimpleNamespace(
        runner=None,
        web_ui=form,
        parsed_options=argparse.Namespace(run_time=run_time, host="http://h"),
        events=SimpleNamespace(test_start=hook, test_stopping=hook, quitting=hook),
    )
    return locustfile.Conductor(environment), environment.parsed_options


def asked(made: Any, options: Any) -> list[str]:
    return locustfile.arguments(options, made._run_time)[2:]


def test_a_run_time_of_the_form_is_a_duration_and_cuts_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.locustfile.gevent.spawn", lambda _: SimpleNamespace(dead=True))
    form = Form()
    made, options = conductor(60, form)
    assert options.run_time is None, "Locust must not end it"
    for typed, duration in ((None, "60s"), (30, "30s"), (None, "60s")):
        if typed:
            options.run_time, form.armed = typed, True
        made.start()
        assert asked(made, options) == ["--duration", duration]
        assert (options.run_time, form.armed) == (None, False)


def test_an_edit_of_the_form_cuts_nothing_off_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.locustfile.gevent.spawn", lambda _: SimpleNamespace(dead=False))
    form = Form()
    made, _ = conductor(60, form)
    (after,) = form.after
    form.armed = True
    assert after("answer") == "answer"
    assert form.armed, "no run goes: Locust's own to decide"
    made.start()
    form.armed = True
    after("answer")
    assert not form.armed


def test_without_a_web_form_the_command_line_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdbench.locustfile.gevent.spawn", lambda _: SimpleNamespace(dead=True))
    made, options = conductor(None, None)
    made.start()
    assert asked(made, options) == []


def test_only_a_key_of_our_own_command_line_may_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locustfile, "_keys", set())
    parser = argparse.ArgumentParser()
    add: Any = parser.add_argument
    monkeypatch.setattr(parser, "add_argument", lambda *flags, env_var, **rest: add(*flags, **rest))
    locustfile.add_options(parser)
    options = parser.parse_args(["--pdbench-api-key-env", "MINE"])
    vars(options)["pdbench_api_key_env"] = "THEIRS"  # what a master does
    assert locustfile._keys == {"MINE"}
