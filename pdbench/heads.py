"""What ``--base`` and ``--head`` may be, and how each becomes a backend that can be started.

    colocated-chunked           a shipped name, or a YAML file
    mine=http://host:8000       a server that already runs (a bare URL is named after its side)
    main                        a git ref, with --backend NAME: that checkout's backends/NAME.yaml
    main:backends/mine.yaml     a git ref and a file in it
    results/baselines/x.json    a stored baseline: for the virtual clock only

A ref is checked out into a work tree of its own, *its* pdserve is run, and the harness that measures stays this
one: else a change of the client would be taken for a change of the server. ``--inject-head`` makes the head worse
on purpose, to see that the gate notices.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from pdbench import resources
from pdbench.errors import UsageError, did_you_mean
from pdbench.target.backend import Backend, load_backend, resolve_backend, url_backend

Role = Literal["base", "head"]

_FACTORS = ("prefill", "decode", "transfer")
_FAULTS = (*_FACTORS, "stall", "drop")
_INJECT_REMEDY = "write --inject-head prefill:1.05,decode:1.05,transfer:2,stall:2%@50ms,drop:20%"
_GIT_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a gate. ``asked``: as typed; ``commit``: of a git ref; ``inject``: faults put in on purpose."""

    role: Role
    asked: str
    backend: Backend
    commit: str = ""
    inject: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"arm": self.backend.name, "asked": self.asked}
        if self.commit:
            found["commit"] = self.commit
        if self.inject:
            found["inject"] = self.inject
        return found


@contextmanager
def open_sides(base: str, head: str, *, backend: str | None = None, inject: str | None = None) -> Iterator[list[Side]]:
    """Base and head, resolved and checked, under different names. Leaving it removes work trees and files it made.

    Raises ``UsageError`` before anything is left behind.
    """
    faults = parse_inject(inject) if inject else None
    with ExitStack() as stack:
        sides = [_open(stack, "base", base, backend), _open(stack, "head", head, backend)]
        if faults:
            sides[1] = _injected(stack, sides[1], faults)
        yield _told_apart(sides)


def _open(stack: ExitStack, role: Role, text: str, name: str | None) -> Side:
    where = f"--{role}"
    if text.endswith(".json"):
        raise UsageError(
            f"'{text}' is a stored baseline, which only a run on the virtual clock can be compared with (tier 0)",
            where=where,
            remedy="a real machine is not the one of last week: name the base as a backend or a git ref",
        )
    if text.startswith(("http://", "https://")):
        return Side(role, text, url_backend(role, text))
    if "=" in text or Path(text).is_file() or text in resources.names("backend"):
        return Side(role, text, resolve_backend(text))
    ref, colon, path = text.partition(":")
    if colon and path:
        return _from_ref(stack, role, text, ref, path)
    if name is not None:
        return _from_ref(stack, role, text, text, name)
    if text.endswith((".yaml", ".yml")):
        return Side(role, text, resolve_backend(text))  # which says that there is no such file
    hint = did_you_mean(text, resources.names("backend"))
    remedy = f"{hint}; a git ref needs --backend NAME, or write REF:path/to/backend.yaml"
    raise UsageError(f"'{text}' is not a backend", where=where, remedy=remedy)


def _from_ref(stack: ExitStack, role: Role, asked: str, ref: str, path: str) -> Side:
    where = f"--{role}"
    commit = _commit(ref, where)
    tree = stack.enter_context(worktree(commit, where))
    file = tree / path if path.endswith((".yaml", ".yml")) else tree / "backends" / f"{path}.yaml"
    if not file.is_file():
        known = [one.stem for one in (tree / "backends").glob("*.yaml")]
        raise UsageError(
            f"{ref} has no {file.relative_to(tree)}", where=where, remedy=did_you_mean(Path(path).stem, known)
        )
    return Side(role, asked, load_backend(file, tree), commit=commit)


def _commit(ref: str, where: str) -> str:
    """The full id of a commit. Raises ``UsageError`` for what is none."""
    done = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.strip()
    inside = _git("rev-parse", "--is-inside-work-tree").returncode == 0
    remedy = "name a branch, tag or commit of this repository" if inside else "run it inside the repository's checkout"
    raise UsageError(f"'{ref}' is neither a backend nor a git ref", where=where, remedy=remedy)


@contextmanager
def worktree(commit: str, where: str) -> Iterator[Path]:
    """A checkout of the commit in a folder of its own, removed afterwards. Raises ``UsageError``."""
    folder = Path(tempfile.mkdtemp(prefix="pdbench-ref-"))
    tree = folder / commit[:12]
    try:
        done = _git("worktree", "add", "--detach", str(tree), commit)
        if done.returncode != 0:
            raise UsageError(f"git cannot check out {commit[:12]}: {done.stderr.strip()}", where=where)
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))
        shutil.rmtree(folder, ignore_errors=True)
        _git("worktree", "prune")


def _git(*args: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *args]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def parse_inject(text: str) -> dict[str, Any]:
    """``"prefill:1.05,stall:2%@50ms"`` as the YAML key ``inject``. The values are judged by pdserve itself.

    Raises ``UsageError`` for an unknown fault, one given twice, or a factor that is no number.
    """
    faults: dict[str, Any] = {}
    for part in text.split(","):
        name, colon, value = (piece.strip() for piece in part.partition(":"))
        if not colon or not value:
            raise UsageError(f"'{part}' is not FAULT:VALUE", where="--inject-head", remedy=_INJECT_REMEDY)
        if name not in _FAULTS:
            raise UsageError(f"unknown fault '{name}'", where="--inject-head", remedy=did_you_mean(name, _FAULTS))
        if name in faults:
            raise UsageError(f"'{name}' is given twice", where="--inject-head", remedy="keep one")
        try:
            faults[name] = float(value) if name in _FACTORS else value
        except ValueError:
            what = f"'{value}' is not a factor for {name}"
            raise UsageError(what, where="--inject-head", remedy=_INJECT_REMEDY) from None
    return faults


def _injected(stack: ExitStack, side: Side, faults: dict[str, Any]) -> Side:
    """The side with the faults, in a YAML of its own."""
    backend = side.backend
    if backend.engine != "pdserve":
        what = f"'{backend.name}' is not a pdserve, and nobody else's server can be slowed from here"
        raise UsageError(what, where="--inject-head", remedy="name a pdserve YAML as --head")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pdbench-inject-")))
    path = folder / f"{backend.name}.yaml"
    inject = {**(backend.data.get("inject") or {}), **faults}
    path.write_text(yaml.safe_dump({**backend.data, "inject": inject}, sort_keys=False), encoding="utf-8")
    try:
        worse = load_backend(path, backend.source)
    except UsageError as error:
        raise UsageError(error.message, where="--inject-head", remedy=error.remedy or _INJECT_REMEDY) from error
    return replace(side, backend=worse, inject=inject)


def _told_apart(sides: list[Side]) -> list[Side]:
    """Two arms need two names: where both are the same backend, its side is added."""
    if sides[0].backend.name != sides[1].backend.name:
        return sides
    return [replace(side, backend=replace(side.backend, name=f"{side.backend.name}-{side.role}")) for side in sides]
