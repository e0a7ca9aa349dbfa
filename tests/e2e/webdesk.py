"""``pdbench web`` as a process, for tests that talk to it by HTTP and for those that look at it in a browser."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.e2e.transcript import ROOT, Desk, until

START_S = 40.0


class Web:
    """A running page. ``said``: its stderr so far."""

    def __init__(self, desk: Desk, args: list[str], env: dict[str, str], folder: Path = ROOT) -> None:
        self.desk = desk
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pdbench", "web", "--web-port", "0", *args],
            cwd=folder, env=desk.env | env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: "live charts" in self.said or self.process.poll() is not None, "the page's address", START_S)
        found = re.search(r"pdbench web: (http://\S+)", self.said)
        assert found is not None, self.said
        self.url = found[1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def post(self, path: str, form: dict[str, str] | None = None, **options: Any) -> Any:
        return requests.post(self.url + path, data=form, timeout=30, **options).json()

    def news(self, since: int = 0) -> Any:
        return self.get(f"/pdbench/live.json?since={since}").json()

    def await_news(self, holds: Any, what: str, deadline_s: float = 60.0) -> Any:
        """The first news for which ``holds``."""
        seen: list[Any] = []

        def now() -> bool:
            seen[:] = [self.news()]
            return bool(holds(seen[0]))

        try:
            until(now, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.said}") from None
        return seen[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(40)
        self._reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


@contextmanager
def web(desk: Desk, *args: str, folder: Path = ROOT, **env: str) -> Iterator[Web]:
    """A page on a free port; it must end well when it is asked to. ``folder``: where it is started."""
    page = Web(desk, list(args), env, folder)
    try:
        yield page
    finally:
        code = page.end()
        assert code == 0, page.said


def form(url: str, workload: str, **changes: str) -> dict[str, str]:
    """What Locust's page would send for a run against a server that already runs."""
    return {
        "backends": "",
        "base_url": url,
        "workload": "chat",
        "workload_file": workload,
        "user_count": "0",
        **changes,
    }


def summary_of(folder: Path) -> Path:
    """The summary of the one run in a folder of results."""
    (found,) = folder.glob("*/summary.json")
    return found
