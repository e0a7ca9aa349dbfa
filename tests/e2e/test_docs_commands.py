"""What README and quickstart tell people to type, typed: scaled down, against the reference engine or a stand-in.

Every command in a block of these pages must be in ``HOW``, which says how it is run here; ``LAST_RUN`` is for those
that take minutes, and then its section of the page must say when it was last run.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import yaml

from tests.e2e.browser import OpenPage, Screenshot, assert_charts_drawn, for_the_docs
from tests.e2e.transcript import ROOT, Desk, Typed, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PAGES = ("README.md", "docs/quickstart.md")
PROGRAMS = ("pdbench", "make", "pip", "python", "python3.11", "locust", ".venv/bin/pdbench", "docker", "uv")
LAST_RUN = "last run"
MARK = re.compile(r"last run (\d{4}-\d{2}-\d{2})")
VALID_OR_NOT = (0, 12)
"""A busy machine makes a run INVALID, which says nothing about the page."""


@dataclass(frozen=True, slots=True)
class Command:
    page: str
    section: str
    text: str


def commands(page: str, text: str) -> Iterator[Command]:
    """The commands in a page's blocks, indented or fenced as shell; comments and prompts are taken off."""
    for section in re.split(r"(?m)^(?=#+ )", text):
        for block in blocks(section):
            lines = [line.strip() for line in re.sub(r"\\\n\s*", "", block).splitlines()]
            if any(line.startswith("$ ") for line in lines):  # the others are what it answers
                lines = [line[2:].strip() for line in lines if line.startswith(("$ ", "> "))]
            for line in lines:
                typed = re.sub(r"\s+#.*$", "", line)
                if typed.split(" ")[0] in PROGRAMS:
                    yield Command(page, section, typed)


def blocks(section: str) -> Iterator[str]:
    fence = re.compile(r"(?ms)^```(\w*)[^\n]*\n(.*?)^```$")
    for kind, body in fence.findall(section):
        if kind in ("", "sh", "bash", "console", "shell"):
            yield body
    for found in re.finditer(r"(?m)(?:^ {4}.*\n|^[ \t]*\n(?= {4}))+", fence.sub("", section)):
        yield found.group()


ALL = [command for page in PAGES for command in commands(page, (ROOT / page).read_text(encoding="utf-8"))]


class Bench:
    """What commands are run on: a desk, small backends, a stand-in for a foreign server, one stored comparison."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.desk = folder, url, Desk()
        self.small = small_backends(folder)

    def type(self, text: str, *more: str, codes: tuple[int, ...] = (0,), **instead: str) -> Typed:
        """A command with words replaced (``instead``) and others added, as a user would."""
        for word, other in instead.items():
            assert word in text, f"{word} is no longer in: {text}"
            text = text.replace(word, other)
        program, *args = [*shlex.split(text), *more]
        assert program == "pdbench", text
        typed = self.desk.type(*args)
        assert typed.code in codes, typed
        assert "Traceback" not in typed.err, typed
        assert not self.desk.leftovers()
        return typed

    def load(self, text: str, *more: str) -> Typed:
        """A command that offers load and stores a run."""
        typed = self.type(text, *more, "-o", str(self.folder / "out"), codes=VALID_OR_NOT)
        assert (folder_of(typed) / "summary.json").is_file(), typed
        return typed

    @cached_property
    def compared(self) -> Typed:
        """The quickstart's comparison, which other commands then show; as it stands there for the pictures."""
        return self.load(QUICK) if for_the_docs() else self.load(QUICK, *self.small, *SCALED)

    @cached_property
    def page(self) -> Path:
        """Its report."""
        folder = folder_of(self.compared)
        self.type(REPORT, RESULTS=str(folder))
        return folder / "report.html"


def folder_of(typed: Typed) -> Path:
    return Path(re.findall(r"(?m)^results: (.+)$", typed.err)[-1])


REPORT = "pdbench report RESULTS --format html"
QUICK = "pdbench compare --pairs 1 --num-requests 20"
SCALED = (
    *("--pairs", "1", "--num-requests", "4", "--warmup", "1", "--rate", "8"),
    *("--prompt-tokens", "64", "--output-tokens", "8"),
)
"""Later options win, so these shrink whatever the page says."""


def small_backends(folder: Path) -> list[str]:
    """Two of the shipped backends with the small model, and one worker each."""
    paths = []
    for name in ("colocated-chunked", "colocated"):
        data = yaml.safe_load((ROOT / "backends" / f"{name}.yaml").read_text())
        data |= {"model": {"preset": "llama-10m", "dtype": "float32", "seed": 0}, "workers": data["workers"][:1]}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data))
        paths.append(str(path))
    return paths


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("docs")
    with Desk().fake(folder) as url:
        yield Bench(folder, url)


def quick(bench: Bench, text: str) -> None:
    """Of the shipped arms, two, small."""
    assert text == QUICK
    assert "colocated-chunked" in bench.compared.out


def interference(bench: Bench, text: str) -> None:
    bench.load(text, f"a={bench.url}", f"b={bench.url}", "--pairs", "1", "--warmup", "0", "--output-tokens", "8")


def foreign(bench: Bench, text: str) -> None:
    """A page's addresses and model, answered by the stand-in."""
    words = [re.sub(r"http://[\w.:-]+", bench.url, word) for word in shlex.split(text.replace("NAME", "fake"))]
    bench.load(shlex.join(words), "--num-requests", "8", "--warmup", "1", "--rate", "20", *pairs(text))


def pairs(text: str) -> tuple[str, ...]:
    return ("--pairs", "1") if " compare " in text else ()


def simulated(bench: Bench, text: str) -> None:
    assert "imulated" in bench.load(text).out


def doctor(bench: Bench, text: str) -> None:
    assert bench.type(text, codes=(0, 2)).out


def page_of(bench: Bench, text: str) -> None:
    """A stored run as one HTML file."""
    assert text == REPORT
    assert "<html" in bench.page.read_text(encoding="utf-8")


def surface(bench: Bench, text: str) -> None:
    bench.type(text, codes=VALID_OR_NOT, RESULTS=str(folder_of(bench.compared)))


def web(bench: Bench, text: str) -> None:
    """It says where it is, answers there, and Ctrl-C ends it."""
    process = bench.desk.start(*shlex.split(text)[1:], "--web-port", "0")
    assert process.stderr
    try:
        said = next((line for line in process.stderr if "http://" in line), "")
        assert answers(re.findall(r"http://[\d.:]+", said)[0])
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert "Traceback" not in err, err
    until(lambda: not bench.desk.leftovers(), "its end")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


HOW: dict[str, Callable[[Bench, str], None] | str] = {
    "make install": LAST_RUN,
    "make test": LAST_RUN,
    "make compare": LAST_RUN,
    "pdbench doctor": doctor,
    QUICK: quick,
    "pdbench compare --workload interference --pairs 3": interference,
    "pdbench run --base-url http://127.0.0.1:8000 --model NAME --workload chat --rate 2 "
    "--num-requests 20 --json": foreign,
    "pdbench compare a=http://gpu-a:8000 b=http://gpu-b:8000 --rate 8 "
    '--slo "ttft p90 <= 400ms" --slo "tpot p90 <= 40ms"': foreign,
    REPORT: page_of,
    "pdbench surface RESULTS": surface,
    "pdbench web": web,
    "pdbench simulate two-queues --workload two-queues": simulated,
}


@pytest.mark.parametrize("text", sorted({command.text for command in ALL}))
def test_a_command_of_the_pages(bench: Bench, text: str) -> None:
    assert text in HOW, f"say how to run it in tests/e2e/test_docs_commands.py: {text}"
    how = HOW[text]
    if not isinstance(how, str):
        how(bench, text)
        return
    for command in [command for command in ALL if command.text == text]:
        last_run(command)


def test_the_report_that_the_quickstart_shows(bench: Bench, open_page: OpenPage, screenshot: Screenshot) -> None:
    page = open_page(height=860, offline=True)
    page.goto(bench.page.as_uri())
    assert_charts_drawn(page, at_least=5)
    screenshot(page, "report")
    screenshot(page.locator("section#stalls"), "report-stalls")


def last_run(command: Command) -> None:
    """Its section says when, and that day is over."""
    found = MARK.search(command.section)
    assert found, f"{command.page}: say when it was last run ('last run 2026-11-23'): {command.text}"
    assert dt.date.fromisoformat(found.group(1)) <= dt.date.today()


def test_nothing_is_said_of_commands_that_are_gone() -> None:
    assert set(HOW) == {command.text for command in ALL}


def test_make_targets_exist_and_make_compare_is_what_readme_says() -> None:
    # A make that runs this test tells its own flags to those below it, which then talk of folders.
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "MFLAGS"}
    done = subprocess.run(
        ["make", "-n", "-B", "compare"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    said = re.search(r"`make compare` is\s+`(pdbench [^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert said
    assert done.stdout.splitlines()[-1].split("/")[-1] == said.group(1)
    for target in {c.text.split()[1] for c in ALL if c.text.startswith("make ")}:
        subprocess.run(["make", "-n", target], cwd=ROOT, env=env, capture_output=True, check=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# A\n\n    pdbench run x   # why\n\n    pdbench run y\n", ["pdbench run x", "pdbench run y"]),
        ("# A\n\n```console\n$ pdbench run \\\n    --json\nout\n```\n", ["pdbench run --json"]),
        ("# A\n\n```console\n$ for a in b; do\n>   pdbench run x\n> done\npdbench run: y\n```\n", ["pdbench run x"]),
        ("# A\n\n```yaml\npdbench run x\n```\ntext pdbench run y\n", []),
    ],
)
def test_how_commands_are_found(text: str, found: list[str]) -> None:
    assert [command.text for command in commands("p.md", text)] == found


def test_a_mark_is_asked_for_in_the_same_section() -> None:
    marked, bare = commands("p.md", "# A\n\n    make x  # last run 2026-11-23\n\n# B\n\n    make y\n")
    last_run(marked)
    with pytest.raises(AssertionError, match="say when it was last run"):
        last_run(bare)
