"""``pdbench worker --master HOST[:PORT]``: one load worker, for a ``pdbench run --expect-workers`` elsewhere."""

from __future__ import annotations

import click

from pdbench.cli.echo import note


@click.command("worker")
@click.option("--master", required=True, metavar="HOST[:PORT]", envvar="PDBENCH_MASTER", help="Who hands out the load.")
@click.option(
    "--worker-timeout", metavar="TIME", default="5m", show_default=True, envvar="PDBENCH_WORKER_TIMEOUT",
    help="How long to look for the master.",
)  # fmt: skip
@click.option(
    "--api-key-env", "keys", metavar="VARIABLE", multiple=True, envvar="PDBENCH_API_KEY_ENV",
    help="A variable whose value may be sent as API key (repeatable). A job that names another is refused.",
)  # fmt: skip
@click.option("--lifeline", is_flag=True, hidden=True, help="End when stdin closes.")
def command(master: str, worker_timeout: str, keys: tuple[str, ...], lifeline: bool) -> int:
    """Wait for the master, send its load and measure, for as many runs as it has; end when it quits.

    The traffic between master and workers is neither encrypted nor authenticated: keep it on a network you trust.
    A master may have requests sent anywhere, but no API key that was not named here.
    """
    from pdbench.units import NS_PER_S, parse_duration_ns

    host, port = split_address(master)
    wait_s = parse_duration_ns(worker_timeout, where="--worker-timeout") / NS_PER_S
    from pdbench.load.worker import serve

    serve(host, port, wait_s=wait_s, lifeline=lifeline, keys=keys, say=note)
    return 0


def split_address(text: str) -> tuple[str, int]:
    """``"host"``, ``"host:5557"`` or ``"[::1]:5557"``. Raises ``UsageError``."""
    from pdbench.errors import UsageError
    from pdbench.fleetspec import DEFAULT_PORT

    host, colon, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise UsageError(f"'{text}' is not HOST or HOST:PORT", where="--master", remedy="e.g. 10.0.0.5:5557")
    return host, int(port) if colon else DEFAULT_PORT
