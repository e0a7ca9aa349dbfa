"""What base and head may be: names, files, URLs, git refs; and a head made worse on purpose."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdbench import resources
from pdbench.errors import UsageError
from pdbench.heads import open_sides, parse_inject

_CHECK = """\
import json, sys
print(json.dumps({"ok": True, "name": "mine", "devices": ["cpu:0"], "device_count": 1, "model": {"hash": "VERSION"}}))
"""


def git(folder: Path, *args: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two commits, tagged v1 and v2, each with a pdserve of its own that tells its version, and a backend."""
    root = tmp_path / "repository"
    (root / "backends" / "pdserve").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    for version in ("v1", "v2"):
        (root / "backends" / "pdserve" / "__init__.py").write_text("")
        (root / "backends" / "pdserve" / "__main__.py").write_text(_CHECK.replace("VERSION", version))
        (root / "backends" / "mine.yaml").write_text("name: mine\nengine: pdserve\n")
        git(root, "add", "-A")
        git(root, "commit", "-qm", version)
        git(root, "tag", version)
    monkeypatch.chdir(root)
    yield root
    assert git(root, "worktree", "list").count("\n") == 0, "work trees are removed"


def test_two_refs_run_their_own_pdserve(repository: Path) -> None:
    with open_sides("v1", "main:backends/mine.yaml", backend="mine") as (base, head):
        assert (base.backend.checked["model"]["hash"], head.backend.checked["model"]["hash"]) == ("v1", "v2")
        assert (base.backend.name, head.backend.name) == ("mine-base", "mine-head")
        assert base.commit == git(repository, "rev-parse", "v1")
        assert base.backend.source is not None
        path = resources.subprocess_env(base.backend.source)["PYTHONPATH"]
        assert path.startswith(str(base.backend.source / "backends"))
        trees = [base.backend.source, head.backend.source]
        assert head.document() == {"arm": "mine-head", "asked": "main:backends/mine.yaml", "commit": head.commit}
    assert not any(tree and tree.exists() for tree in trees)


@pytest.mark.parametrize(
    ("base", "backend", "what", "remedy"),
    [
        ("v3", "mine", "'v3' is neither a backend nor a git ref", "branch, tag or commit"),
        ("v1", "mone", "v1 has no backends/mone.yaml", "did you mean 'mine'?"),
        ("v1:other.yaml", None, "v1 has no other.yaml", "known: mine"),
        ("--exec=x", "mine", "bad arm name", ""),
        ("v1", None, "'v1' is not a backend", "--backend NAME"),
        ("missing.yaml", None, "no such file", ""),
        ("colocted", None, "'colocted' is not a backend", "did you mean 'colocated'?"),
        ("x.json", None, "is a stored baseline", "as a backend or a git ref"),
    ],
)
def test_what_is_no_side(repository: Path, base: str, backend: str | None, what: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught, open_sides(base, "v1", backend=backend or None):
        pass
    assert what in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="inside the repository's checkout"), open_sides("main", "main", backend="x"):
        pass


def test_urls_and_names() -> None:
    with open_sides("http://127.0.0.1:1", "new=http://127.0.0.1:2/v1") as (base, head):
        assert [(s.backend.name, s.backend.base_url) for s in (base, head)] == [
            ("base", "http://127.0.0.1:1"),
            ("new", "http://127.0.0.1:2"),
        ]
    with open_sides("colocated", "disaggregated") as sides:
        assert [side.backend.name for side in sides] == ["colocated", "disaggregated"]


def test_a_head_made_worse() -> None:
    with open_sides("colocated", "colocated", inject="decode:1.5,stall:2%@50ms,drop:20%") as (base, head):
        assert (base.inject, base.backend.name) == (None, "colocated-base")
        assert head.inject == {"decode": 1.5, "stall": "2%@50ms", "drop": "20%"}
        path = head.backend.path
        assert path is not None
        written = yaml.safe_load(path.read_text())
        assert (written["inject"], written["workers"]) == (head.inject, base.backend.data["workers"])
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("prefill:1.05", {"prefill": 1.05}),
        (" decode : 1.5 , transfer:2", {"decode": 1.5, "transfer": 2.0}),
        ("stall:2%@50ms", {"stall": "2%@50ms"}),
    ],
)
def test_faults(text: str, faults: dict[str, Any]) -> None:
    assert parse_inject(text) == faults


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("decode", "not FAULT:VALUE"), ("decode:", "not FAULT:VALUE"), ("", "not FAULT:VALUE"),
        ("decod:1.5", "unknown fault"), ("decode:fast", "not a factor"), ("decode:2,decode:3", "given twice"),
    ],
)  # fmt: skip
def test_bad_faults(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        parse_inject(text)
    assert caught.value.where == "--inject-head"


@pytest.mark.parametrize(
    ("head", "inject", "what"),
    [
        ("colocated", "decode:0.5", "factor of at least 1"),
        ("colocated", "stall:often", "stall reads like 2%@50ms"),
        ("colocated", "drop:120%", "drop reads like 20%"),
        ("a=http://127.0.0.1:1", "decode:2", "is not a pdserve"),
    ],
)
def test_faults_that_no_server_takes(head: str, inject: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught, open_sides("colocated", head, inject=inject):
        pass
    assert caught.value.where == "--inject-head"
