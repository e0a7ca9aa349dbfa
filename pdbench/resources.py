"""Where the YAML files live: beside the package in a checkout, inside it when installed.

find("workload", "chat") -> .../workloads/chat.yaml
find("backend", "./mine.yaml") -> mine.yaml
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Literal

from pdbench.errors import UsageError, did_you_mean

Kind = Literal["workload", "backend"]

_PACKAGE = Path(__file__).resolve().parent


def folder(kind: Kind) -> Path:
    """The folder that holds the shipped files of this kind."""
    beside = _PACKAGE.parent / f"{kind}s"
    inside = _PACKAGE / f"{kind}s"
    return inside if inside.is_dir() else beside


def names(kind: Kind) -> list[str]:
    """The shipped names, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))


def find(kind: Kind, text: str) -> Path:
    """The file for a shipped name or a path. Raises ``UsageError`` with a did-you-mean."""
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        path = Path(text).expanduser()
        if path.is_file():
            return path
        raise UsageError(f"no such file: {text}", where=kind, remedy=_known(kind, path.stem))
    path = folder(kind) / f"{text}.yaml"
    if path.is_file():
        return path
    raise UsageError(f"unknown {kind} '{text}'", remedy=_known(kind, text))


def _known(kind: Kind, text: str) -> str:
    hint = did_you_mean(text, names(kind))
    return f"{hint} (pdbench {kind}s list; or a path ending in .yaml)"


def subprocess_env(source: Path | None = None) -> dict[str, str]:
    """The environment for ``python -m pdserve``: a checkout that is not installed needs its path. ``source``: another
    checkout, whose pdserve goes before an installed one."""
    env = dict(os.environ)
    extra = [str(source / "backends")] if source is not None else []
    if importlib.util.find_spec("pdserve") is None and (_PACKAGE.parent / "backends" / "pdserve").is_dir():
        extra.append(str(_PACKAGE.parent / "backends"))
    if importlib.util.find_spec("pdbench") is not None and not _installed():
        extra.append(str(_PACKAGE.parent))
    if extra:
        old = env.get("PYTHONPATH")
        env["PYTHONPATH"] = os.pathsep.join([*extra, old] if old else extra)
    return env


def own_env() -> dict[str, str]:
    """The environment for a Python of ours that must run this very pdbench, wherever another one is installed."""
    old = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE.parent), old] if old else [str(_PACKAGE.parent)])}


def _installed() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("pdbench")
    except PackageNotFoundError:
        return False
    return True
