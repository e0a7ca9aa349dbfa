"""``pdbench locustfile``: where the file for ``locust -f`` is."""

from __future__ import annotations

from pathlib import Path

import click

import pdbench


@click.command("locustfile")
def command() -> int:
    """Print the path of the locustfile: locust -f $(pdbench locustfile) --headless --host http://127.0.0.1:8000"""
    click.echo(str(Path(pdbench.__file__).resolve().parent / "locustfile.py"))
    return 0
