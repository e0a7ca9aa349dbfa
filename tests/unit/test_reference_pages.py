"""The reference pages that mkdocs makes: nothing that exists is left out, and nothing breaks the tables."""

from __future__ import annotations

import re
from typing import Any

import click
import make_documents
import make_reference
import pytest

from pdbench import errors, schema
from pdbench.cli.main import COMMANDS, cli

CLI = make_reference.cli_page()
DOCUMENTS = make_documents.documents_page()


def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [leaf for name, inner in found if inner for leaf in leaves(inner, f"{path} {name}")]


ALL = leaves(cli, "pdbench")


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_option_is_told_with_its_variable_and_default(path: str, command: click.Command) -> None:
    section = lines_of(path)
    for option in [p for p in command.params if isinstance(p, click.Option)]:
        row = next(
            (line for line in section if line.startswith("|") and re.search(f"`{option.opts[-1]}[` ]", line)), ""
        )
        assert bool(row) != option.hidden, (path, option.opts)
        if isinstance(option.envvar, str) and row:
            assert f"`{option.envvar}`" in row


def section_of(path: str) -> list[str]:
    """A command's own lines, and those of the shared options that it names."""
    sections: dict[str, str] = dict(re.findall(r"(?ms)^##+ [^\n]*\{#([a-z-]+)\}\n(.*?)(?=^##|\Z)", CLI))
    own = sections["-".join(path.split()[1:])]
    return [own, *(sections[anchor] for anchor in re.findall(r"\(#([a-z-]+)\)", own))]


def lines_of(path: str) -> list[str]:
    return "\n".join(section_of(path)).splitlines()


def test_a_default_of_a_commands_own_beats_the_shared_one() -> None:
    assert any("`--seed" in line and "`1000`" in line for line in section_of("pdbench tune")[0].splitlines())
    assert not any("`--seed" in line for line in section_of("pdbench compare")[0].splitlines())


def test_every_command_is_in_the_overview() -> None:
    for name in COMMANDS:
        assert f"| [`pdbench {name}`](#{name}) |" in CLI
        assert f"{{#{name}}}" in CLI


def test_every_exit_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vars(errors).items():
        if name.startswith("EXIT_"):
            assert f"| {value} | {make_reference.EXITS[name]} |" in CLI
    monkeypatch.setattr(errors, "EXIT_NEW", 77, raising=False)
    with pytest.raises(KeyError, match="EXIT_NEW"):
        make_reference.cli_page()


@pytest.mark.parametrize("page", [CLI, DOCUMENTS], ids=["cli", "documents"])
def test_tables_are_tables(page: str) -> None:
    """As many cells in each row as in its head: bars inside code spans do not count."""
    width = 0
    for line in page.splitlines():
        cells = re.sub(r"`[^`]*`", "code", line).count("|") if line.startswith("|") else 0
        assert not (width and cells) or cells == width, line
        width = cells


@pytest.mark.parametrize("page", [CLI, DOCUMENTS], ids=["cli", "documents"])
def test_anchors_are_there_and_unique(page: str) -> None:
    anchors = re.findall(r"\{#([\w-]+)\}", page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\(#([\w-]+)\)", page)) <= set(anchors)


def test_every_document_and_shared_part_is_there() -> None:
    for name in schema.NAMES:
        assert f"## {name} {{#{name}}}" in DOCUMENTS
    for name in schema.load("compare")["$defs"]:
        assert f"### {name} {{#part-{name}}}" in DOCUMENTS


def keys(found: Any) -> int:
    """Keys of a schema, those of everything inside included."""
    if isinstance(found, list):
        return sum(map(keys, found))
    if not isinstance(found, dict):
        return 0
    return sum(len(value) if name == "properties" else 0 for name, value in found.items()) + sum(
        keys(value) for name, value in found.items() if name not in ("if", "then", "else", "$defs")
    )


@pytest.mark.parametrize("name", schema.NAMES)
def test_every_key_has_a_row_and_a_meaning(name: str) -> None:
    found = schema.load(name)
    rows = list(make_documents.rows_of(found, ""))
    assert len(rows) == keys(found)
    assert [key for key, _, _, meaning in rows if not meaning] == []


@pytest.mark.parametrize("name", sorted(schema.load("compare")["$defs"]))
def test_every_key_of_a_shared_part_has_a_meaning(name: str) -> None:
    rows = make_documents.rows_of(schema.load("compare")["$defs"][name], "")
    assert [key for key, _, _, meaning in rows if not meaning and not key.endswith("NAME`")] == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"$ref": "#/$defs/arm"}, "[arm](#part-arm)"),
        ({"type": "array", "items": {"type": "number", "minimum": 0}}, "list of number ≥ 0"),
        ({"type": ["number", "null"]}, "number or null"),
        ({"enum": ["a", None]}, "`a`, `null`"),
        ({"const": True}, "`true`"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "object of string"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/arm"}]}, "null or [arm](#part-arm)"),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9}, "integer &gt; 0, &lt; 9"),
    ],
)
def test_types_in_words(found: dict[str, Any], words: str) -> None:
    assert make_documents.type_of(found) == words
