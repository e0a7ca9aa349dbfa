"""The reference pages, made from the code while mkdocs builds, so that they cannot be out of date.

mkdocs loads this file as a hook (``mkdocs.yml``). ``reference/cli.md`` comes from the commands themselves,
``reference/documents.md`` (``make_documents.py``) from the JSON schemas that documents are tested against.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from make_documents import documents_page

from pdbench import errors
from pdbench.cli.main import cli
from pdbench.cli.options import comparison_options, output_options, run_options, workload_options

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

Shared = list[tuple[str, list[click.Option]]]

SHARED = (
    ("The workload", workload_options),
    ("The run and its load workers", run_options),
    ("A comparison", comparison_options),
    ("Output", output_options),
)
EXITS = {
    "EXIT_OK": "Done. Of a gate: PASS.",
    "EXIT_CRASH": "A fault of pdbench, or a server that `serve` started and that ended by itself.",
    "EXIT_USAGE": "Bad input: an option, a file, a key, a backend that does not start. Nothing is left running.",
    "EXIT_FAILED": "A gate's FAIL; elsewhere only under `--fail-on`: an objective is missed, or a head is worse.",
    "EXIT_INCONCLUSIVE": "A gate that cannot tell, after all its pairs.",
    "EXIT_INVALID": "The measurement is INVALID: there are numbers, and no verdict.",
    "EXIT_INTERRUPTED": "Interrupted (Ctrl-C, SIGTERM). What was measured is written and marked INVALID.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """mkdocs' hook: put the made pages beside the written ones."""
    from mkdocs.structure.files import File

    for path, text in (("reference/cli.md", cli_page()), ("reference/documents.md", documents_page())):
        files.append(File.generated(config, path, content=text))
    return files


def cli_page() -> str:
    """Every command with its options, their variables and defaults; then the exit codes."""
    shared = [(title, options_of(decorate)) for title, decorate in SHARED]
    context = click.Context(cli, info_name="pdbench")
    lines = [
        "# Commands",
        "",
        "Made from the code: what `pdbench COMMAND --help` prints, in one page.",
        "",
        "An option beats its environment variable, that beats the file, that beats the default. A repeatable option's",
        "variable holds several values separated by blanks (of `--slo`: by `;`).",
        "",
        "| command | does |",
        "|---|---|",
    ]
    commands = [(name, found) for name in cli.list_commands(context) if (found := cli.get_command(context, name))]
    lines += [f"| [`pdbench {name}`](#{name}) | {cell(first_line(found))} |" for name, found in commands]
    lines += [
        "| [shared options](#shared-options) | what several commands take |",
        "| [exit codes](#exit-codes) | what a command ends with |",
    ]
    for name, found in commands:
        lines += command_lines(found, f"pdbench {name}", name, shared)
    lines += ["", "## Shared options {#shared-options}"]
    for title, options in shared:
        lines += ["", f"### {title} {{#{slug(title)}}}", "", *option_table(options)]
    return "\n".join([*lines, "", *exit_lines(), ""])


def command_lines(command: click.Command, path: str, anchor: str, shared: Shared) -> list[str]:
    """A section: what it does, how it is called, its own options, and which of the shared ones it takes."""
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    lines = ["", f"## {path} {{#{anchor}}}", "", *help_lines(command), "", "```text", usage, "```"]
    own = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    taken = [(title, options) for title, options in shared if names(options) <= names(own)]
    common = {name: option for _, options in taken for name, option in zip(map(key, options), options, strict=True)}
    left = [option for option in own if not alike(option, common.get(key(option)))]
    if left:
        lines += ["", *option_table(left)]
    if taken:
        links = [f"[{title.lower()}](#{slug(title)})" for title, _ in taken]
        lines += ["", f"{'And the' if left else 'The'} shared options: {', '.join(links)}."]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                section = command_lines(inner, f"{path} {name}", f"{anchor}-{name}", shared)
                lines += [re.sub("^## ", "### ", line) for line in section]
    return lines


def help_lines(command: click.Command) -> list[str]:
    """A docstring as Markdown: paragraphs as they are, those that click must not wrap as code."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.splitlines()[1:] if paragraph.startswith("\b") else []
        if len(kept) > 1 or (kept and kept[0].startswith("pdbench ")):
            lines += ["", "```text", *kept, "```"]
        else:
            lines += ["", html.escape("\n".join(kept) or paragraph, quote=False)]
    return lines[1:]


def option_table(options: Iterable[click.Option]) -> list[str]:
    rows = [f"| {spelling(o)} | {meaning(o)} | {default(o)} | {variable(o)} |" for o in options if not o.hidden]
    return ["| option | meaning | default | variable |", "|---|---|---|---|", *rows]


def spelling(option: click.Option) -> str:
    """``-w``, ``--workload NAME|FILE``; a pipe inside a code span does not end a cell."""
    names = [*option.opts, *option.secondary_opts]
    if not option.is_flag:
        names[-1] += f" {option.make_metavar(click.Context(click.Command('x')))}"
    return ", ".join(f"`{name}`" for name in names)


def meaning(option: click.Option) -> str:
    text = cell(option.help or "")
    return f"{text} Repeatable." if option.multiple and "epeatable" not in text else text


def default(option: click.Option) -> str:
    value: Any = option.to_info_dict()["default"]
    return "" if option.is_flag or value is None or value == () else f"`{value}`"


def variable(option: click.Option) -> str:
    return f"`{option.envvar}`" if isinstance(option.envvar, str) else ""


def options_of(decorate: Any) -> list[click.Option]:
    """What a decorator of options adds to a command."""
    command = click.command()(decorate(lambda: None))
    return [param for param in command.params if isinstance(param, click.Option)]


def key(option: click.Option) -> str:
    return option.name or ""


def names(options: Iterable[click.Option]) -> set[str]:
    return {key(option) for option in options if not option.hidden}


def alike(option: click.Option, other: click.Option | None) -> bool:
    """Whether it is said already: a command may have its own default for a shared option."""
    return other is not None and all(tell(option) == tell(other) for tell in (spelling, meaning, default, variable))


def first_line(command: click.Command) -> str:
    return (command.help or "").split("\n\n")[0].replace("\n", " ")


def cell(text: str) -> str:
    """Text for a table: no markup, no bar."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([|*_`\[\]])", lambda found: f"&#{ord(found.group())};", escaped)


def slug(text: str) -> str:
    return re.sub(r"[^a-z]+", "-", text.lower()).strip("-")


def exit_lines() -> list[str]:
    """A table of every ``EXIT_*``. Raises ``KeyError`` for one that has no words here."""
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    rows = [f"| {value} | {EXITS[name]} |" for name, value in sorted(codes.items(), key=lambda item: item[1])]
    return ["## Exit codes {#exit-codes}", "", "| code | meaning |", "|---:|---|", *rows]
