"""How to run the same again: the exact command, the versions, the hashes of the plans."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from pdbench.report.html.context import Page
from pdbench.report.html.parts import Block, Cell, Code, Missing, Section, Table, Text

_LAUNCHERS = {"python", "python3", "python3.11", "python3.12", "python3.13"}


def section(page: Page) -> Section:
    blocks: list[Block] = []
    for run in page.runs:
        argv = [str(word) for word in (run.manifest or {}).get("argv") or []]
        if argv:
            blocks.append(Code(command_of(argv), f"{run.name}:" if len(page.runs) > 1 else ""))
        else:
            blocks.append(Missing(f"{run.name}: no command.", "The run was not sealed by a manifest."))
    if hashes := [str(one) for one in (page.main.manifest or {}).get("plan_hashes") or []]:
        rows: list[list[Cell | str]] = [[str(number), one] for number, one in enumerate(hashes, start=1)]
        same = "Two runs with the same hash offered the same requests at the same instants."
        blocks += [Text(same, "note"), Table("Hashes of the plans, a pair each", ("pair", "SHA-256"), rows, "ll", True)]
    blocks.append(_versions(page))
    return Section("reproduce", "How to reproduce it", blocks)


def command_of(argv: list[str]) -> str:
    """The command as one types it: ``/usr/bin/pdbench run x`` is ``pdbench run x``; quoted for a shell."""
    program = PurePath(argv[0]).name
    if program in _LAUNCHERS:
        return shlex.join([program, *argv[1:]])
    if program == "__main__.py":
        return shlex.join(["python", "-m", "pdbench", *argv[1:]])
    return shlex.join([program, *argv[1:]])


def _versions(page: Page) -> Block:
    config = (page.main.manifest or {}).get("config") or {}
    found = page.document.get("fingerprint") or {}
    rows: list[list[Cell | str]] = [
        ["pdbench", str(found.get("pdbench", "?"))],
        ["git", str(found.get("git_sha") or "?")],
    ]
    rows += [[str(name), str(version)] for name, version in (found.get("versions") or {}).items()]
    rows += [[key.replace("_", " "), str(config[key])] for key in ("seed", "clock", "pairs") if key in config]
    return Table("Versions and settings", ("what", "value"), rows, "ll", folded=True)
