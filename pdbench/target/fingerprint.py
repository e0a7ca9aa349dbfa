"""Who measured what with which: enough to see later why two results differ.

Half of all "regressions" are another machine, another core count, another library or another model. The
fingerprint names them; the gate compares its keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import pdbench
from pdbench.target.backend import Backend
from pdbench.target.inspect import Facts

_PACKAGES = ("locust", "uvloop", "httptools", "numpy", "pandas", "pyarrow", "torch")
_MACHINE_KEYS = ("machine", "cpu_model", "cores")


def machine() -> dict[str, Any]:
    """The machine the load comes from (and, for local servers, runs on)."""
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu_model": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_bytes": int(psutil.virtual_memory().total),
        "python": platform.python_version(),
        "versions": versions(),
        "pdbench": pdbench.__version__,
        "git_sha": git_sha(),
    }


def arm(backend: Backend, facts: Facts | None, state: dict[str, Any]) -> dict[str, Any]:
    """What one arm runs: engine, devices, model, lengths, and how prompt tokens were counted."""
    model = {**backend.checked.get("model", {}), **state.get("model", {})}
    fields = {
        "engine": backend.engine,
        "devices": backend.devices,
        "device_names": [str(name) for name in backend.checked.get("devices", [])],
        "base_url": backend.base_url,
        "model": (facts.model if facts else None) or model.get("name"),
        "model_hash": model.get("hash"),
        "dtype": model.get("dtype"),
        "max_model_len": (facts.max_model_len if facts else None) or backend.max_model_len,
        "prompt_token_source": facts.prompt_token_source if facts else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def cpu_model() -> str:
    """The processor's name; on Linux from /proc, since ``platform`` only knows the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Installed versions of the packages that can move a number. Nothing is imported."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_sha() -> str:
    """The commit of the checkout, with ``+`` when files differ from it; ``""`` outside a checkout."""
    root = Path(pdbench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    sha = _git(root, "rev-parse", "HEAD")
    return f"{sha}+" if sha and _git(root, "status", "--porcelain", "--untracked-files=no") else sha


def _git(root: Path, *args: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *args],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def key(machine_fields: Mapping[str, Any], arm_fields: Mapping[str, Any], *arm_keys: str) -> str:
    """16 hex digits that name a machine and, of an arm, its devices, number format and ``arm_keys``.

    What changes with every update (kernel, package versions) is left out on purpose: it is recorded, not a key.
    """
    values = [machine_fields.get(name) for name in _MACHINE_KEYS]
    values += [arm_fields.get(name) for name in ("engine", "devices", "device_names", "dtype", *arm_keys)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
