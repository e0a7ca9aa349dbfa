"""The door: ``pdbench COMMAND``. Commands are imported when they are asked for, so that ``--help`` is quick.

Exit codes: 0 done, 1 crash, 2 usage, 10 only under --fail-on, 12 invalid, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from pdbench import __version__
from pdbench.errors import (
    EXIT_CRASH,
    EXIT_INTERRUPTED,
    EXIT_OK,
    PdbenchError,
    did_you_mean,
)
from pdbench.report.clean import clean_lines

COMMANDS: dict[str, str] = {
    "compare": "Compare backends under one load, pair by pair, and say which is better.",
    "run": "Run one load against one backend.",
    "search": "Find the rate that each backend carries within the SLO: goodput.",
    "tune": "Find a backend's token budget and batch caps, and write the tuned YAML.",
    "serve": "Start a backend in the foreground.",
    "simulate": "Run a backend on the virtual clock.",
    "gate": "Fail when the head is worse than the base: for a CI.",
    "baseline": "Accept or show stored references.",
    "web": "Start runs in a browser, and watch the SLO live.",
    "worker": "Take a share of the load of a pdbench run elsewhere.",
    "locustfile": "Say where the locustfile is, for locust -f.",
    "report": "Show a stored run.",
    "surface": "Show stored runs under all SLO limits at once.",
    "workloads": "List, show and check workloads.",
    "backends": "List, show and check backends.",
    "doctor": "Say what this machine can measure.",
}


class Lazy(click.Group):
    """A group that knows its commands' names and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"pdbench.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"pdbench.cli.{cmd_name}.command is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], list(COMMANDS))
            raise click.UsageError(f"No such command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pdbench")
def cli() -> None:
    """Does separating prefill from decode pay, for this model, hardware, traffic and SLO?

    \b
    pdbench compare                         three reference deployments on this machine
    pdbench compare a=http://... b=http://...   two servers that already run
    pdbench run --base-url URL --model NAME     one server
    """


def main(args: list[str] | None = None) -> None:
    """Run, and end the process with the right exit code."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """As ``main``, but returns the exit code."""
    try:
        code = cli.main(args=args, prog_name="pdbench", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PdbenchError as error:
        click.echo(clean_lines(f"{_heading(error)}{error}"), err=True)
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CRASH


def _heading(error: PdbenchError) -> str:
    return "" if error.exit_code == EXIT_INTERRUPTED else "Error: "


if __name__ == "__main__":
    main()
