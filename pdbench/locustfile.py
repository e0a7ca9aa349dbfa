"""pdbench for people who live in Locust: the same engine, the same options, Locust's own command.

    locust -f $(pdbench locustfile) --headless --host http://127.0.0.1:8000 --pdbench-rate 4
    locust -f $(pdbench locustfile) --master            (and --worker elsewhere; or the web UI, without --headless)

Every option of ``pdbench run`` is here as ``--pdbench-OPTION`` and as its ``PDBENCH_*`` variable; ``--host`` is the
server, ``--run-time`` the duration. A test's start is one run: the plan is made, engines send it, Locust shows its
live statistics; at the end the SLO table is printed, the results are stored, and the exit code is ``pdbench run``'s.
The number of users means nothing here: one user keeps Locust content, arrivals are the workload's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for a checkout that is not installed

import click
import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from pdbench.cli.echo import note
from pdbench.cli.run import asked_of
from pdbench.cli.run import command as run_command
from pdbench.errors import EXIT_CRASH, PdbenchError
from pdbench.load.core import Core
from pdbench.load.job import Job
from pdbench.load.outcome import LoadOutcome, OnDelta, ShouldStop
from pdbench.load.shape import EngineKeeper
from pdbench.load.steer import Local
from pdbench.load.worker import Worker
from pdbench.stopping import StopFlag

__all__ = ["EngineKeeper"]  # the user class that Locust looks for

PREFIX = "pdbench_"
_LOCUSTS_OWN = frozenset(
    {"base_url", "expect_workers", "processes", "bind", "port", "as_json", "quiet", "no_color", "print_config"}
)
_WORKERS_WAIT_S = 60.0
_keys: set[str] = set()
"""Variables that this command line named as an API key. The namespace of Locust's options would not do: a master
changes a worker's."""
_STOP_LIMIT_S = 90.0


# ---- options


def _shared() -> list[click.Parameter]:
    """What ``pdbench run`` takes and Locust does not name in its own way."""
    return [param for param in run_command.params if param.name and param.name not in _LOCUSTS_OWN]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any, **_: Any) -> None:
    """Each option on its own: Locust loses argument groups. Values are checked by pdbench, in its own words."""
    for param in _shared():
        if isinstance(param, click.Argument):
            flags, about, variable = ["--pdbench-backend"], "A backend, instead of --host.", "PDBENCH_BACKEND"
        else:
            long = next(name for name in param.opts if name.startswith("--"))
            flags = [f"--pdbench-{long[2:]}"]
            about, variable = getattr(param, "help", "") or "", str(param.envvar)
        if param.multiple if isinstance(param, click.Option) else False:
            about += " Several: separated by ;"
        flag = isinstance(param, click.Option) and param.is_flag
        kind = own_key if param.name == "api_key_env" else str
        settings: dict[str, Any] = {"action": "store_true"} if flag else {"type": kind, "default": None}
        parser.add_argument(
            *flags, dest=PREFIX + str(param.name), env_var=variable, help=about.replace("%", "%%"), **settings
        )


def own_key(variable: str) -> str:
    """The type of ``--pdbench-api-key-env``: what was typed is noted."""
    _keys.add(variable)
    return variable


def arguments(options: Any, run_time: float | None) -> list[str]:
    """The arguments of ``pdbench run`` that Locust's options and its run time (s) stand for."""
    found: list[str] = []
    named = vars(options)
    if named.get("host") and not named.get(f"{PREFIX}backend"):
        found += ["--base-url", named["host"]]
    for param in _shared():
        value = named.get(PREFIX + str(param.name))
        if value is None or value is False or str(value).strip() == "":
            continue
        if isinstance(param, click.Argument):
            found.append(str(value))
        elif isinstance(param, click.Option):
            long = next(name for name in param.opts if name.startswith("--"))
            values = str(value).split(";") if param.multiple else [str(value)]
            found += [long] if param.is_flag else [word for one in values for word in (long, one.strip())]
    if run_time and not named.get(f"{PREFIX}duration"):
        found += ["--duration", f"{run_time}s"]
    return found


# ---- a master, or Locust alone


class Fleet:
    """The workers of ``locust --master``, gathered anew for each run."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._core = Core(environment.runner, note)

    def run(self, job: Job, on_delta: OnDelta, should_stop: ShouldStop) -> LoadOutcome:
        """See ``pdbench.load.steer.run_load``."""
        expected = self._environment.parsed_options.expect_workers or 1
        self._core.gather(max(expected, self._environment.runner.worker_count), _WORKERS_WAIT_S)
        return self._core.run(job, on_delta, should_stop)


class Conductor:
    """One run for each start of Locust's test."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._crew = Fleet(environment) if isinstance(environment.runner, MasterRunner) else Local(environment)
        self._stop = StopFlag(signals=False)
        self._greenlet: gevent.Greenlet | None = None
        options = environment.parsed_options
        self._given = self._run_time = options.run_time
        options.run_time = None  # our plan knows its end; Locust's would cut off warm-up and drain
        environment.events.test_start.add_listener(self.start)
        environment.events.test_stopping.add_listener(self.finish)
        environment.events.quitting.add_listener(self.finish)
        if environment.web_ui is not None:
            environment.web_ui.app.after_request(self._disarm)

    def _disarm(self, response: Any) -> Any:
        """Locust's form arms a timer for its run time at every edit as well, which starts no test."""
        if self._greenlet is not None and not self._greenlet.dead:
            self._environment.web_ui._cancel_run_time_timer()
        return response

    def start(self, **_: Any) -> None:
        if self._greenlet is None or self._greenlet.dead:
            self._stop = StopFlag(signals=False)
            self._take_run_time()
            self._greenlet = gevent.spawn(self._play)

    def _take_run_time(self) -> None:
        """What was typed into the web form for this test, else what the command line said. Locust's form has armed a
        timer by now that would cut the run off; when to end is the plan's to say."""
        options, ui = self._environment.parsed_options, self._environment.web_ui
        self._run_time, options.run_time = options.run_time or self._given, None
        if ui is not None:
            ui._cancel_run_time_timer()

    def finish(self, **_: Any) -> None:
        """Locust stops: let the run end, and be stored, before Locust takes the workers away."""
        playing = self._greenlet
        if playing is None or playing.dead or playing is gevent.getcurrent() or playing.value is not None:
            return
        self._stop.requested = True
        playing.join(_STOP_LIMIT_S)

    def _play(self) -> None:
        self._environment.process_exit_code = self._run()
        self._greenlet = None  # from here on it is Locust that ends
        if self._environment.web_ui is None:
            self._environment.runner.quit()
        else:
            self._environment.runner.stop()

    def _run(self) -> int:
        try:
            return self._compare()
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except PdbenchError as error:
            note(f"Error: {error}")
            return error.exit_code
        except Exception as error:  # Locust would go on for ever
            note(f"Error: {type(error).__name__}: {error}")
            return EXIT_CRASH

    def _compare(self) -> int:
        options = self._environment.parsed_options
        context = run_command.make_context("locust", arguments(options, self._run_time))
        arm, workload, settings = asked_of(context.params)
        from pdbench.cli.compare import show
        from pdbench.compare import compare
        from pdbench.report.progress import Lines

        outcome = compare([arm], workload, settings, Lines(), kind="run", crew=self._crew, stop=self._stop)
        return show(outcome, context.params)


# ---- a worker


class Bench:
    """``locust --worker``: what ``pdbench worker`` does."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._worker = Worker(environment.runner, note, _keys)
        self._greenlet = gevent.spawn(self._serve)
        environment.events.quitting.add_listener(lambda **_: self._worker.close())

    def _serve(self) -> None:
        try:
            self._worker.serve()
        except PdbenchError as error:
            note(f"Error: {error}")
            self._environment.process_exit_code = error.exit_code
            self._environment.runner.quit()


@events.init.add_listener  # type: ignore[untyped-decorator]
def attach(environment: Any, **_: Any) -> None:
    """Become what Locust was started as."""
    environment.pdbench = Bench(environment) if isinstance(environment.runner, WorkerRunner) else Conductor(environment)
