"""The workflow under docs/ci is one that GitHub takes, and calls pdbench as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pdbench.cli.gate import command
from pdbench.errors import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_INVALID

WORKFLOW = Path(__file__).resolve().parents[2] / "docs" / "ci" / "github-actions.yml"


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    """check-jsonschema with the schema of GitHub's workflows that it carries; it asks no network."""
    args = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(args, capture_output=True, text=True, check=False)


def test_the_linter_takes_it() -> None:
    done = lint(WORKFLOW)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("good", "bad"), [("runs-on:", "run-on:"), ("    steps:", "    step:"), ("fetch-depth: 0", "fetch-depth: [0]")]
)
def test_the_linter_can_refuse(good: str, bad: str, tmp_path: Path) -> None:
    text = WORKFLOW.read_text()
    assert good in text
    spoiled = tmp_path / "w.yml"
    spoiled.write_text(text.replace(good, bad))
    assert lint(spoiled).returncode == 1


def script(name: str) -> str:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["gate"]["steps"]
    return next(str(step["run"]) for step in steps if step.get("name") == name)


def test_its_options_exist() -> None:
    known = {option for parameter in command.params for option in parameter.opts}
    used = set(re.findall(r"(?<= )--[a-z-]+", script("Gate") + script("Does the gate keep its promises?")))
    assert used
    assert used <= known


@pytest.mark.parametrize(
    ("code", "ends", "says"),
    [
        (0, 0, ""), (EXIT_FAILED, EXIT_FAILED, ""), (2, 2, ""), (1, 1, ""),
        (EXIT_INCONCLUSIVE, 0, "inconclusive"), (EXIT_INVALID, 0, "invalid"),
    ],
)  # fmt: skip
def test_what_it_makes_of_exit_codes(code: int, ends: int, says: str) -> None:
    """The step's own script, with a pdbench that ends as told."""
    text = f"pdbench() {{ return {code}; }}\n{script('Gate')}"
    done = subprocess.run(["bash", "-e", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == ends
    assert says in done.stdout
    assert bool(done.stdout) == bool(says)
