"""``pdbench backends list|show|check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pdbench import resources
from pdbench.cli.echo import print_json, print_yaml

if TYPE_CHECKING:
    from pdbench.target.backend import Backend


@click.group("backends")
def command() -> None:
    """List, show and check backends."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
def list_(as_json: bool) -> None:
    """The shipped backends."""
    from pdbench.yamlfile import read

    folder = resources.folder("backend")
    docs = [read(folder / f"{name}.yaml").data for name in resources.names("backend")]
    if as_json:
        print_json([{key: doc.get(key) for key in ("name", "engine", "description")} for doc in docs])
        return
    width = max((len(str(doc["name"])) for doc in docs), default=0)
    for doc in docs:
        click.echo(f"{doc['name']!s:{width}}  {doc.get('engine', 'pdserve')!s:8}  {doc.get('description', '')}")


@command.command("show")
@click.argument("backend")
@click.option("--json", "as_json", is_flag=True, help="Pure JSON on stdout.")
def show(backend: str, as_json: bool) -> None:
    """A backend as its file says it, and what its engine makes of it."""
    from pdbench.target.backend import resolve_backend

    described = describe(resolve_backend(backend))
    if as_json:
        print_json(described)
    else:
        print_yaml(described)


@command.command("check")
@click.argument("backends", nargs=-1)
def check(backends: tuple[str, ...]) -> None:
    """Read and check backends (all shipped ones by default); nothing is started."""
    from pdbench.target.backend import resolve_backend

    for text in backends or tuple(resources.names("backend")):
        found = resolve_backend(text)
        click.echo(f"{text}: ok, {found.engine}, {found.devices} device{'s' * (found.devices != 1)}")


def describe(backend: Backend) -> dict[str, Any]:
    """Plain data for display."""
    data = dict(backend.data)
    if backend.checked:
        said = {k: v for k, v in backend.checked.items() if k not in ("ok", "name")}
        data["checked"] = said
    return data
