"""What commands print: results and data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import click
import yaml

from pdbench.report.clean import clean_lines


def print_json(document: Any) -> None:
    """One JSON document on stdout; infinities become null, as METRICS says."""
    click.echo(json.dumps(finite(document), indent=2, allow_nan=False))


def print_yaml(data: Any) -> None:
    click.echo(yaml.safe_dump(finite(data), sort_keys=False, allow_unicode=True, width=100).rstrip())


def note(text: str) -> None:
    """A line on stderr, or several; nothing in it can steer the terminal."""
    click.echo(clean_lines(text), err=True)


def wants_color(no_color: bool) -> bool:
    """Colours unless the option or the customary variable forbids them."""
    return not no_color and not os.environ.get("NO_COLOR")


def finite(value: Any) -> Any:
    """The value with every infinite or undefined float turned into None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
