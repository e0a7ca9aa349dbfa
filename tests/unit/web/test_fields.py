"""What a form comes to on a command line, what is refused, and how the page says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pdbench.cli.web import resolve
from pdbench.errors import PdbenchError, UsageError
from pdbench.web.fields import BY_NAME, FIELDS, Preset, arguments, explain, extra_options

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("form", "kind", "args"),
    [
        ({"backends": "disaggregated"}, "run", ["--", "disaggregated"]),
        ({"backends": "disaggregated", "pairs": "4"}, "run", ["--", "disaggregated"]),
        ({"backends": "a, b", "pairs": "4"}, "compare", ["--pairs", "4", "--", "a", "b"]),
        ({"base_url": URL, "model": "m"}, "run", ["--model", "m", "--base-url", URL]),
        ({"backends": "a", "baseURL": URL}, "compare", ["--", "a", f"server={URL}"]),
        ({"backends": "a", "workload": "chat", "workload_file": "x.yaml"}, "run", ["--workload", "x.yaml", "--", "a"]),
        ({"backends": "a", "SLO": "ttft p90 <= 1s; ;errors <= 1%"}, "run",
         ["--slo", "ttft p90 <= 1s", "--slo", "errors <= 1%", "--", "a"]),
        ({"backends": "a", "rate": "-3"}, "run", ["--rate=-3", "--", "a"]),
        ({"backends": "a", "rate": " 3 ", "user_count": "0", "host": "x"}, "run", ["--rate", "3", "--", "a"]),
        ({"backends": "--api-key-env=SECRET a"}, "compare", ["--", "--api-key-env=SECRET", "a"]),
    ],
)  # fmt: skip
def test_a_form_is_a_command_line(form: dict[str, str], kind: str, args: list[str]) -> None:
    assert arguments(form, Preset()) == (kind, args)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({}, "Backends: nothing to measure"),
        ({"backends": " , "}, "Backends: nothing to measure"),
        ({"backends": "a", "model": "m"}, "Model: only goes with a base URL"),
        ({"backends": "a", "base_url": URL, "model": "m"}, "Model: cannot be chosen in a comparison"),
        ({"backends": "a", "arrivals": "trace:/etc/passwd"}, "Arrivals: a trace's file cannot be named in a form"),
        (
            {"backends": "a", "arrivals": "closed"},
            "Arrivals: a closed loop needs a number of streams. write it as closed",
        ),
        ({"backends": "a\x00b"}, "Backends: too long"),
        ({"backends": "a" * 5000}, "Backends: too long"),
    ],
)
def test_a_form_that_is_none(form: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        arguments(form, Preset())
    assert explain(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("text", "well"),
    [
        ("mine.yaml", True),
        ("sub/mine.yml", True),
        ("{root}/mine.yaml", True),
        ("mine.csv", False),
        ("sub/../../other.yaml", False),
        ("/proc/kmsg", False),
        ("/etc/shadow", False),
        ("/nowhere.yaml", False),
        ("~/x.yaml", False),
        ("~nobody-such/x.yaml", False),
        ("link.yaml", False),
        ("loop.yaml", False),
    ],
)
@pytest.mark.parametrize("name", ["workload_file", "backends", "workload"])
def test_files_are_named_below_one_folder(tmp_path: Path, name: str, text: str, well: bool) -> None:
    (tmp_path / "link.yaml").symlink_to("/etc/passwd")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    given = text.format(root=tmp_path)
    if name != "workload_file" and not ("/" in given or given.endswith(".yaml")):
        return  # a name of something shipped
    form = {"backends": "a"} | {name: given}
    if well:
        assert given in arguments(form, Preset(root=tmp_path))[1]
        return
    with pytest.raises(UsageError, match=r"only \*\.yaml and \*\.yml files below") as caught:
        arguments(form, Preset(root=tmp_path))
    assert caught.value.where == BY_NAME[name].label


def test_the_key_goes_to_the_server_it_was_given_for() -> None:
    preset = Preset(extra=("-o", "out"), base_url=f"{URL}/", api="chat", api_key_env="KEY")
    assert arguments({"base_url": URL}, preset)[1] == [
        *("--base-url", URL, "--api", "chat", "--api-key-env", "KEY", "-o", "out")
    ]  # fmt: skip
    assert "KEY" not in arguments({"base_url": "http://elsewhere"}, preset)[1]
    assert "KEY" not in arguments({"base_url": URL, "backends": "a"}, preset)[1]
    assert "KEY" not in str(extra_options(preset.defaults()))
    assert preset.defaults()["base_url"] == f"{URL}/"


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"rate": "abc"}, "Rate: 'abc' is not a valid float."),
        ({"rate": "-3"}, "Rate: rate must be greater than 0, got -3"),
        ({"rate": "nan"}, "Rate: "),
        ({"rate": "inf"}, "Rate: "),
        ({"rate": "1e-9"}, "Rate: the plan is longer than a year. raise the rate"),
        ({"burstiness": "0"}, "Burstiness: "),
        ({"num_requests": "1.5"}, "Num Requests: '1.5' is not a valid integer."),
        ({"num_requests": "0"}, "Num Requests: "),
        ({"duration": "soon"}, "Duration: "),
        ({"duration": "9s", "num_requests": "9"}, "Duration and Num Requests both set"),
        ({"arrivals": "often"}, "Arrivals: "),
        ({"SLO": "ttft <= 400ms"}, "SLO: "),
        ({"SLO": "itl p90 <= 4ms"}, "SLO: "),
        ({"seed": "-1"}, "Seed: "),
        ({"workload_file": "nowhere.yaml"}, "workload: no such file: nowhere.yaml"),
        ({"base_url": "http://me:hush@x"}, "server: a base URL has no user or password. put the key into"),
        ({"base_url": "ftp://x"}, "server=ftp://x: bad URL"),
        ({"base_url": "", "backends": "disagregated"}, "unknown backend 'disagregated'. did you mean"),
        ({"base_url": "", "backends": "x=http://a x=http://b"}, "two arms are named 'x'"),
        ({"backends": "x=http://a", "pairs": "0"}, "Pairs: "),
        ({"backends": "--json x=http://a"}, "unknown backend '--json'"),
    ],
)  # fmt: skip
def test_the_command_line_refuses_it_and_the_page_names_the_field(form: dict[str, str], says: str) -> None:
    with pytest.raises(PdbenchError) as caught:
        resolve(*arguments({"base_url": URL, "workload": "chat"} | form, Preset()))
    assert explain(caught.value).startswith(says), explain(caught.value)


def test_what_is_asked_can_be_typed() -> None:
    form = {
        "backends": f"x={URL} y={URL}",
        "workload": "chat",
        "rate": "3",
        "num_requests": "7",
        "SLO": "ttft p50 <= 1s",
    }
    asked = resolve(*arguments(form, Preset(extra=("-o", "somewhere", "--processes", "2"))))
    assert (asked.kind, [arm.name for arm in asked.arms], asked.base) == ("compare", ["x", "y"], "x")
    assert (asked.workload.arrivals.rate, asked.workload.num_requests, asked.workload.slo) == (
        3.0,
        7,
        ["ttft p50 <= 1s"],
    )
    assert asked.settings.fleet is not None
    assert (asked.settings.fleet.processes, str(asked.settings.out_dir)) == (2, "somewhere")
    assert asked.settings.argv[:2] == ("pdbench", "compare")
    again = resolve("compare", list(asked.settings.argv[2:]))
    assert again == asked


def test_the_form_as_locust_shows_it() -> None:
    options = extra_options(Preset().defaults() | {"rate": "<script>"})
    assert len(options) == len(FIELDS)
    assert list(options)[:2] == ["backends", "baseURL"]
    assert options["rate"]["default_value"] == "<script>", "the template escapes it"
    assert "chat" in options["workload"]["choices"]
    shown: Any = [one for one in options.values() if one["is_secret"]]
    assert not shown
