"""``python -m pdserve serve|simulate|check``: the engine's own command line.

    python -m pdserve serve backends/disaggregated.yaml --port 8000
    python -m pdserve check backends/disaggregated.yaml --json
    python -m pdserve simulate --json-in job.json --out result.json

Exit codes: 0 done, 1 a crash or a worker that did not start, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from pdserve.config import BackendConfig, ConfigError, Problem, parse
from pdserve.log import log


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except ConfigError as error:
        if getattr(args, "json", False):
            _print_json({"ok": False, "errors": [_plain(error.problem)]})
        else:
            log(f"{getattr(args, 'file', args.__dict__.get('json_in'))}: {error}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pdserve", description="The reference engine.")
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="start a backend and serve the OpenAI API")
    serve.add_argument("file", type=Path)
    serve.add_argument("--host", default=None)
    serve.add_argument("--port", type=int, default=None, help="0: any free port")
    serve.add_argument("--port-file", type=Path, default=None, help="where to write the bound port, as JSON")
    serve.add_argument("--lifeline", action="store_true", help="end when standard input closes")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check", help="say whether a backend file can be run, and what it is")
    check.add_argument("file", type=Path)
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)
    simulate = commands.add_parser("simulate", help="run a plan on the virtual clock")
    simulate.add_argument("--json-in", type=Path, required=True)
    simulate.add_argument("--out", type=Path, required=True)
    simulate.set_defaults(run=_simulate)
    return parser


def load(path: Path) -> BackendConfig:
    """Reads and checks a backend file. Raises ``ConfigError``."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Problem((), f"cannot be read: {error}")) from None
    except yaml.YAMLError as error:
        raise ConfigError(Problem((), f"is not YAML: {error}")) from None
    return parse(data)


def _serve(args: argparse.Namespace) -> int:
    from pdserve.server import serve

    config = load(args.file)
    return serve(
        config,
        host=args.host or config.host,
        port=args.port if args.port is not None else config.port or 0,
        port_file=args.port_file,
        lifeline=args.lifeline,
    )


def _check(args: argparse.Namespace) -> int:
    from pdserve.resolve import describe

    facts = describe(load(args.file))
    if args.json:
        _print_json(facts)
    else:
        names = ", ".join(facts["devices"])
        sys.stdout.write(f"{facts['name']}: ok, {facts['device_count']} device(s): {names}\n")
    return 0


def _simulate(args: argparse.Namespace) -> int:
    from pdserve.simulate import simulate

    job = msgspec.json.decode(args.json_in.read_bytes())
    if not isinstance(job, dict) or job.get("schema_version") != 1:
        raise ConfigError(Problem(("schema_version",), "this pdserve reads simulation jobs of version 1"))
    result = simulate(parse(job["backend"]), job["plan"])
    args.out.write_bytes(msgspec.json.encode(result))
    return 0


def _plain(problem: Problem) -> dict[str, Any]:
    return {"path": list(problem.path), "message": problem.message, "remedy": problem.remedy}


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


if __name__ == "__main__":
    sys.exit(main())
