"""``pdbench doctor``: what this machine can measure, and what is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from pdbench.cli.echo import print_json

_OFFSET_US = 20.0  # the error that validity grants a kernel stamp


@click.command("doctor")
@click.option("-o", "--output", default="results", show_default=True, help="The results directory to check.")
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
def command(output: str, as_json: bool) -> None:
    """Say what this machine can measure."""
    found = examine(Path(output))
    if as_json:
        print_json(found)
        return
    for check in found["checks"]:
        click.echo(f"{'ok  ' if check['ok'] else 'note'}  {check['what']}: {check['says']}")


def examine(results: Path) -> dict[str, Any]:
    """Machine facts and a list of checks; nothing is started."""
    from pdbench.target import fingerprint

    machine = fingerprint.machine()
    checks = [
        _check("processor", True, f"{machine['cpu_model']}, {machine['cores']} cores"),
        _cores(int(machine["cores"])),
        _memory(int(machine["memory_bytes"])),
        _check("Python", True, machine["python"]),
        _torch(),
        _kernel_stamps(),
        _clock_offset(),
        _writable(results),
        _load(int(machine["cores"])),
    ]
    return {"fingerprint": machine, "checks": checks}


def _check(what: str, ok: bool, says: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "says": says}


def _cores(cores: int) -> dict[str, Any]:
    enough = cores >= 4
    says = "enough for two devices and the client" if enough else "devices and client share cores: watch the lags"
    return _check("cores", enough, says)


def _memory(total: int) -> dict[str, Any]:
    from pdbench.target.arm import WORKER_MEMORY_BYTES
    from pdbench.units import format_bytes

    need = 6 * WORKER_MEMORY_BYTES  # three arms of two workers
    says = f"{format_bytes(total)}; the default comparison keeps about {format_bytes(need)} resident"
    return _check("memory", total >= need, says)


def _torch() -> dict[str, Any]:
    found = importlib.util.find_spec("torch") is not None
    says = "installed: the reference backends run" if found else "missing: only other servers can be tested"
    return _check("torch", found, says if found else f"{says}; pip install 'pdbench[reference]'")


def _kernel_stamps() -> dict[str, Any]:
    """What the engine asks before it relies on them, then how long after a write they are."""
    from pdbench.load.clock import ClockOffset
    from pdbench.load.stamps import loopback_stamps, stamps_come
    from pdbench.load.wire import kernel_stamps_work

    what, user = "receive stamps", "--clock user is used (auto), --clock kernel is refused"
    if not kernel_stamps_work():
        return _check(what, False, f"not from the kernel: {user}")
    if not stamps_come() or not (errors := loopback_stamps(ClockOffset())):
        return _check(what, False, f"the kernel takes the option and sends no stamps: {user}")
    middle = errors[len(errors) // 2] / 1e3
    return _check(what, True, f"from the kernel, {middle:.0f} us after the write (median of {len(errors)}); --clock "
                  "kernel and auto work for plain TCP, --clock user everywhere")  # fmt: skip


def _clock_offset() -> dict[str, Any]:
    """How exactly the kernel's clock is brought onto ours: the spread of repeated measurements."""
    from pdbench.load.clock import measure_offset_ns

    offsets = [measure_offset_ns() for _ in range(50)]
    spread = (max(offsets) - min(offsets)) / 1e3
    return _check("clock offset", spread < _OFFSET_US, f"known within {spread:.3f} us (50 measurements)")


def _writable(results: Path) -> dict[str, Any]:
    import os

    existing = results
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    ok = existing.is_dir() and os.access(existing, os.W_OK)
    return _check("results", ok, f"{results} {'can' if ok else 'cannot'} be written")


def _load(cores: int) -> dict[str, Any]:
    import psutil

    load = psutil.getloadavg()[0]
    quiet = load < 0.25 * cores
    return _check("load", quiet, f"{load:.2f} over the last minute{'' if quiet else ': measure on a quiet machine'}")
