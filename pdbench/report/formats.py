"""The forms in which a stored run can be had, one line each: what makes it, and where it goes.

An exporter takes runs and gives files by name. What is to be read goes to stdout, what another program is to open goes
into the run's folder; ``-o`` says otherwise. A new one is one function and one line in ``FORMATS``.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pdbench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from pdbench.stored import StoredRun

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What exporters may be told besides the runs."""

    price: float | None = None


class Exporter(Protocol):
    """Runs in, files out: name -> text. Raises ``UsageError`` for a run that has no such form."""

    def __call__(self, runs: Sequence[StoredRun], asked: Asked, /) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Format:
    """``shown``: goes to stdout unless ``-o`` says otherwise."""

    export: Exporter
    shown: bool = False


def print_runs(runs: Sequence[StoredRun], console: Console) -> None:
    """Every run as the verb that made it printed it."""
    from pdbench.report.gate import print_calibration, print_gate
    from pdbench.report.search import print_search
    from pdbench.report.text import print_document
    from pdbench.report.tune import print_tune

    printers = {"search": print_search, "tune": print_tune, "gate": print_gate, "calibration": print_calibration}
    for run in runs:
        printers.get(run.kind, print_document)(run.document, console)


def _text(runs: Sequence[StoredRun], _asked: Asked) -> Mapping[str, str]:
    from rich.console import Console

    out = io.StringIO()
    print_runs(runs, Console(file=out, width=100, no_color=True, highlight=False, markup=False, emoji=False))
    return {"report.txt": out.getvalue()}


def _json(runs: Sequence[StoredRun], _asked: Asked) -> Mapping[str, str]:
    documents = [run.document for run in runs]
    return {
        "report.json": json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, allow_nan=False) + "\n"
    }


def _markdown(runs: Sequence[StoredRun], _asked: Asked) -> Mapping[str, str]:
    from pdbench.report.markdown import document_markdown

    return {"report.md": "\n".join(document_markdown(run.document) for run in runs)}


def _junit(runs: Sequence[StoredRun], _asked: Asked) -> Mapping[str, str]:
    from pdbench.report.junit import junit

    for run in runs:
        if run.kind != "gate":
            what = f"{run.name} is a {run.kind or 'run'}: only a gate passes or fails"
            raise UsageError(what, where="--format junit", remedy="name the run of a gate, or use --format md")
    if len(runs) != 1:
        raise UsageError("JUnit XML is of one gate", where="--format junit", remedy="name one run")
    return {"junit.xml": junit(runs[0].document)}


def _html(runs: Sequence[StoredRun], asked: Asked) -> Mapping[str, str]:
    from pdbench.report.html.page import FILE_NAME, render

    return {FILE_NAME if len(runs) == 1 else "report-over-time.html": render(runs, price=asked.price)}


def _csv(runs: Sequence[StoredRun], _asked: Asked) -> Mapping[str, str]:
    from pdbench.report.csvfile import arms_csv, requests_csv

    run = _only(runs, "csv")
    return {"requests.csv": requests_csv(run), "arms.csv": arms_csv(run)}


def _perfetto(runs: Sequence[StoredRun], _asked: Asked) -> Mapping[str, str]:
    from pdbench.report.perfetto import trace

    return {"perfetto.json": json.dumps(trace(_only(runs, "perfetto")), allow_nan=False)}


def _only(runs: Sequence[StoredRun], name: str) -> StoredRun:
    if len(runs) != 1:
        raise UsageError("takes one run", where=f"--format {name}", remedy="call it once a run")
    return runs[0]


FORMATS: Mapping[str, Format] = {
    "text": Format(_text, shown=True),
    "json": Format(_json, shown=True),
    "md": Format(_markdown, shown=True),
    "junit": Format(_junit, shown=True),
    "html": Format(_html),
    "csv": Format(_csv),
    "perfetto": Format(_perfetto),
}


def write_files(files: Mapping[str, str], runs: Sequence[StoredRun], output: Path | None) -> list[Path]:
    """Write an export: one file to ``output``, several into it as a folder; without it, into the first run's folder.

    A link is followed, a device or a pipe is written to: neither is replaced. A file is never half-written.
    Returns the paths. Raises ``UsageError`` naming ``-o`` where that cannot be done.
    """
    folder = runs[0].path if runs[0].path.is_dir() else runs[0].path.parent
    if output is not None and (len(files) > 1 or output.is_dir()):
        paths = {output / name: text for name, text in files.items()}
    elif output is not None:
        paths = dict.fromkeys([output], next(iter(files.values())))
    else:
        paths = {folder / name: text for name, text in files.items()}
    for path, text in paths.items():
        try:
            path.parent.mkdir(parents=output is not None and len(files) > 1, exist_ok=True)
            _put(path, text.encode("utf-8", "replace"))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"cannot write {path}: {reason}", where="-o", remedy="name a file in a writable folder"
            ) from None
    return list(paths)


def _put(path: Path, content: bytes) -> None:
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    goal = Path(os.path.realpath(path))
    if goal.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    beside = goal.with_name(f".{goal.name}.part")
    beside.write_bytes(content)
    beside.replace(goal)
