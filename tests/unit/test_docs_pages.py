"""What the pages say of pdbench exists: options of commands, and files that are shown."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pdbench.cli.main import cli
from pdbench.cli.main import run as pdbench
from tests.e2e.test_docs_commands import Command, commands
from tests.e2e.transcript import ROOT

PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
ALL = [command for page in PAGES for command in commands(page, (ROOT / page).read_text(encoding="utf-8"))]
OURS = [command for command in ALL if command.text.startswith("pdbench ")]


@pytest.mark.parametrize("command", OURS, ids=lambda command: f"{Path(command.page).stem}: {command.text}")
def test_commands_and_their_options_exist(command: Command) -> None:
    verb: click.Command = cli
    words = command.text.split()[1:]
    while isinstance(verb, click.Group):
        found = verb.get_command(click.Context(verb), words.pop(0))
        assert found is not None, command
        verb = found
    known = {name for param in verb.params for name in (*param.opts, *param.secondary_opts)} | {"-h", "--help"}
    assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", f" {' '.join(words)}")) <= known, command


def test_commands_are_found() -> None:
    assert len(OURS) > 30


def test_the_files_of_the_tutorial_are_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "tutorial-vllm.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```yaml\n# ([\w.-]+)\n(.*?)^```$", text)
    assert [name for name, _ in blocks] == ["vllm-colocated.yaml", "vllm-disaggregated.yaml", "mine.yaml"]
    for name, body in blocks:
        (tmp_path / name).write_text(body, encoding="utf-8")
        kind = "backends" if "engine:" in body else "workloads"
        assert pdbench([kind, "check", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.count("2 devices") == 2


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_and_pictures_exist(page: str) -> None:
    """mkdocs looks after the pages under docs/; these two it does not know."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", text)
    paths = {a or b for a, b in found if not (a or b).startswith("http")}
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
