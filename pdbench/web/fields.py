"""The start form: its fields, and what they come to on a command line. Pure.

A form is turned into the arguments of ``pdbench run`` or ``pdbench compare``; the command's own code checks them, so
that a form and a shell are refused in the same words. What an error says of ``--rate`` is told of the field's label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdbench import resources
from pdbench.errors import PdbenchError, UsageError
from pdbench.web.files import SUFFIXES, check_file, is_path

if TYPE_CHECKING:
    from pdbench.settings import Settings
    from pdbench.target.backend import Backend
    from pdbench.workload.spec import Workload

_LONGEST = 4000
_OPTION = re.compile(r"--([a-z][a-z-]*)")
_FILE = "workload_file"
_KEYS = {"SLO": "SLO", "Base URL": "baseURL"}
"""Locust makes ``Slo`` of ``slo``; these come out right, and are sent as ``SLO`` and ``base_url``."""


@dataclass(frozen=True, slots=True)
class Field:
    """``name``: in the form; ``option``: of the command line, where it is one; ``default``: what a new form holds;
    ``label``: what Locust's page makes of ``key``, which it turns into the name when the form is sent."""

    name: str
    help: str
    option: str = ""
    default: str = ""
    shown: str = ""

    @property
    def label(self) -> str:
        return self.shown or self.name.replace("_", " ").title()

    @property
    def key(self) -> str:
        return _KEYS.get(self.shown, self.name)


FIELDS = (
    Field("backends", "names, YAML files or NAME=URL, with blanks between; several are compared"),
    Field("base_url", "a server that already runs, e.g. http://127.0.0.1:8000; may stand beside backends",
          shown="Base URL"),
    Field("model", "which of its models; empty: the first that it lists", "--model"),
    Field("workload", "what is sent, and when", "--workload", "chat"),
    Field(_FILE, "a YAML file below the folder where pdbench web was started, instead"),
    Field("arrivals", "empty: the workload's; poisson, constant, gamma, ramp:1:8:60s, spike:2:10:20s:5s, closed:8, ...",
          "--arrivals"),
    Field("rate", "requests per second; empty: the workload's", "--rate"),
    Field("burstiness", "of gamma gaps: 1 is Poisson, below 1 is burstier", "--burstiness"),
    Field("slo", "separated by ; e.g. ttft p90 <= 400ms; tpot p90 <= 40ms; empty: the workload's", "--slo",
          shown="SLO"),
    Field("duration", "e.g. 60s; or the number of requests, not both", "--duration"),
    Field("num_requests", "measured requests in a run; empty: the workload's", "--num-requests", "20"),
    Field("pairs", "runs of every backend when several are compared", "--pairs", "2"),
    Field("seed", "of the plans", "--seed", "0"),
)  # fmt: skip
BY_NAME = {field.name: field for field in FIELDS}
DEFAULT_BACKENDS = "colocated-chunked disaggregated"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a form came to, resolved and checked. ``kind``: run (one arm) or compare."""

    kind: str
    arms: list[Backend]
    workload: Workload
    settings: Settings
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """What the command line of ``pdbench web`` fixes for every run. ``extra``: arguments that go with each (``-o``,
    workers); ``base_url``: fills the form, and is the one server that gets the key of ``api_key_env``; ``root``: where
    the files that a form names must be."""

    extra: tuple[str, ...] = ()
    base_url: str = ""
    model: str = ""
    api: str = ""
    api_key_env: str = ""
    root: Path = Path()

    def defaults(self) -> dict[str, str]:
        """What a new form holds."""
        found = {field.name: field.default for field in FIELDS}
        if not self.base_url:
            return found | {"backends": DEFAULT_BACKENDS}
        return found | {"base_url": self.base_url, "model": self.model}


def arguments(form: Mapping[str, str], preset: Preset) -> tuple[str, list[str]]:
    """The command (``run`` or ``compare``) and its arguments. Raises ``UsageError`` naming fields by their options."""
    values = {field.name: (form.get(field.name) or form.get(field.key) or "").strip() for field in FIELDS}
    for name, value in values.items():
        if len(value) > _LONGEST or not value.isprintable():
            raise UsageError("too long, or with characters that cannot be typed", where=BY_NAME[name].label)
    backends, url = values["backends"].replace(",", " ").split(), values["base_url"]
    if not backends and not url:
        raise UsageError(
            "nothing to measure",
            where=BY_NAME["backends"].label,
            remedy=f"name a backend ({', '.join(resources.names('backend'))}), or give a base URL",
        )
    if values["model"] and not url:
        raise UsageError("only goes with a base URL", where=BY_NAME["model"].label, remedy="a backend's YAML says it")
    single = len(backends) + bool(url) == 1
    if url and not single and values["model"]:
        remedy = "write a backend YAML with engine: openai and name that"
        raise UsageError("cannot be chosen in a comparison", where=BY_NAME["model"].label, remedy=remedy)
    _check_files(values, backends, preset.root)
    options = _options(values, single) + _server(url, single, preset) + list(preset.extra)
    names = [*backends, *([f"server={url}"] if url and not single else [])]
    # What follows -- is never an option, whatever it looks like.
    return ("run" if single else "compare"), [*options, *(["--", *names] if names else [])]


def _check_files(values: Mapping[str, str], backends: Sequence[str], root: Path) -> None:
    """Whatever may open a file, in any field. Raises ``UsageError``."""
    named = [("workload", values["workload"]), *(("backends", one) for one in backends)]
    for name, text in named:
        url = name == "backends" and "=" in text and not text.endswith(SUFFIXES)
        if is_path(text) and not url:
            check_file(text, root, where=BY_NAME[name].label)
    if values[_FILE]:
        check_file(values[_FILE], root, where=BY_NAME[_FILE].label)
    kind = values["arrivals"].partition(":")[0]
    if kind == "closed" == values["arrivals"]:
        where = BY_NAME["arrivals"].label
        raise UsageError("a closed loop needs a number of streams", where=where, remedy="write it as closed:8")
    if kind == "trace":
        remedy = "name it in a workload file (arrivals: {process: trace, file: ...})"
        raise UsageError("a trace's file cannot be named in a form", where=BY_NAME["arrivals"].label, remedy=remedy)


def _options(values: Mapping[str, str], single: bool) -> list[str]:
    found: list[str] = []
    for field in FIELDS:
        value = values[field.name]
        if field.name == "workload" and values[_FILE]:
            value = values[_FILE]
        if not field.option or not value or (single and field.name == "pairs"):
            continue
        parts = [part.strip() for part in value.split(";")] if field.name == "slo" else [value]
        found += [word for part in parts if part for word in _pair(field.option, part)]
    return found


def _pair(option: str, value: str) -> list[str]:
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def _server(url: str, single: bool, preset: Preset) -> list[str]:
    """The options that a server of somebody else's takes alone. The key goes to the server it was given for."""
    if not url or not single:
        return []
    found = ["--base-url", url]
    if url.rstrip("/") == preset.base_url.rstrip("/"):
        found += [*(["--api", preset.api] if preset.api else [])]
        found += [*(["--api-key-env", preset.api_key_env] if preset.api_key_env else [])]
    return found


def explain(error: PdbenchError) -> str:
    """What was wrong, where and what to do, in one line, with the names of fields for those of options."""
    labels = {field.option[2:]: field.label for field in FIELDS if field.option} | {
        "base-url": BY_NAME["base_url"].label
    }

    def named(match: re.Match[str]) -> str:
        return labels.get(match[1], match[0])

    where = _OPTION.sub(named, error.where)
    what = _OPTION.sub(named, error.message)
    remedy = " ".join(_OPTION.sub(named, error.remedy).split())
    return ": ".join(part for part in (where, what) if part) + (f". {remedy}" if remedy else "")


def extra_options(values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The fields as Locust's start page takes them, with what they hold now."""
    found: dict[str, dict[str, Any]] = {}
    for field in FIELDS:
        value = values.get(field.name) or values.get(field.key) or ""
        choices: Sequence[str] | None = resources.names("workload") if field.name == "workload" else None
        found[field.key] = {
            "default_value": value,
            "choices": list(choices) if choices else None,
            "help_text": field.help,
            "is_secret": False,
            "is_required": False,
            "is_multiple": False,
        }
    return found
