"""Bad YAML is refused with file, line, key, and a suggestion where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pdbench.errors import UsageError
from pdbench.yamlfile import YamlDoc, convert, parse, read


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rate: float

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate must be greater than 0, got {self.rate:g}")


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arrivals: Inner
    slo: list[str] = []
    other: Inner | None = None
    many: list[Inner] = []


def doc(text: str) -> YamlDoc:
    return parse(text, Path("w.yaml"))


def test_good() -> None:
    found = convert(doc("name: x\narrivals: {rate: 2}\nmany: [{rate: 1}]\n"), Outer)
    assert found == Outer("x", Inner(2.0), many=[Inner(1.0)])


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("name: x\narrivals: {rate: 0}", "w.yaml:2: arrivals.rate", "must be greater than 0, got 0"),
        ("name: x\narrivals:\n  rat: 1", "w.yaml:3: arrivals.rat", "did you mean 'rate'?"),
        ("name: x\narrivals: {rate: 1}\nother:\n  rtae: 1", "w.yaml:4: other.rtae", "did you mean 'rate'?"),
        ("name: x\narrivals: {rate: 1}\nmany:\n- {rate: 1}\n- {rote: 1}", "w.yaml:5: many[1].rote", "unknown key"),
        ("name: x\narrivals: {rate: fast}", "w.yaml:2: arrivals.rate", "expected `float`, got `str`"),
        ("name: x\narrivals: {rate: 1}\nslo:\n - 3", "w.yaml:4: slo[0]", "expected `str`, got `int`"),
        ("arrivals: {rate: 1}", "w.yaml:1", "the key 'name' is missing"),
        ("name: x\narrivals: {}", "w.yaml:2", "the key 'rate' is missing in arrivals"),
        ("nmae: x\narrivals: {rate: 1}", "w.yaml:1: nmae", "did you mean 'name'?"),
    ],
)
def test_bad_values(text: str, where: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        convert(doc(text), Outer)
    assert caught.value.where == where
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("name: [", "w.yaml:1", "malformed YAML"),
        ("a:\n\t- b", "w.yaml:2", "malformed YAML"),
        ("name: x\nname: y", "w.yaml:2", "the key 'name' is given twice"),
        ("a: {b: 1, b: 2}", "w.yaml:1", "the key 'b' is given twice"),
        ("- a", "w.yaml:1", "expected a mapping"),
        ("", "w.yaml:1", "expected a mapping"),
        ("just words", "w.yaml:1", "expected a mapping"),
        ("1: 2", "w.yaml", "keys must be words"),
        ("a: 1\n---\nb: 2", "w.yaml", "malformed YAML"),
        ("a: !!python/object:os.system x", "w.yaml:1", "malformed YAML"),
        ("a: \x00secret", "w.yaml", "not allowed (character 3)"),
        ("[" * 3000, "w.yaml", "nested too deeply"),
        ("a: &a [*a]", "w.yaml", "nested too deeply"),
        ("a: !!timestamp x", "w.yaml", "malformed YAML"),
        ("a: !!bool x", "w.yaml", "malformed YAML"),
        (
            "a: &a [1]\n"
            + "\n".join(
                f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]"
                for a, b in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "w.yaml",
            "too many values",
        ),
    ],
)
def test_malformed(text: str, where: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        doc(text)
    assert caught.value.where.startswith(where)
    assert what in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the file") as caught:
        read(tmp_path / "none.yaml")
    assert "none.yaml" in caught.value.where


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UsageError):
        read(path)


@pytest.mark.parametrize("key", ["root:$6$abc:19000", "a secret line", "k" * 60])
def test_what_is_no_key_is_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="unknown key") as caught:
        convert(doc(f"name: x\narrivals: {{rate: 1}}\n'{key}': 0"), Outer)
    assert key not in str(caught.value)
    assert caught.value.where == "w.yaml:3"


def test_it_never_waits_for_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="is not a regular file"):
        read(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read(tmp_path / "large.yaml")


def test_where_falls_back_to_the_parent() -> None:
    assert doc("a:\n  b: 1").where("a", "missing") == "w.yaml:1: a.missing"


def test_flow_and_block_lines() -> None:
    found = doc("workers:\n  - {role: prefill}\n  - {role: decode,\n     device: 1}\n")
    assert found.where("workers", 1, "device") == "w.yaml:4: workers[1].device"
    assert found.at("workers", 1, "device") == 1
