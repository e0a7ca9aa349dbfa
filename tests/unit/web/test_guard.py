"""Who is answered: by the name that was asked for, by where a request comes from, by password."""

from __future__ import annotations

import socket

import pytest

from pdbench.errors import UsageError
from pdbench.web.guard import Account, Door, is_loopback, refusal


@pytest.mark.parametrize(
    ("method", "headers", "bound", "well"),
    [
        ("GET", {"Host": "127.0.0.1:8089"}, "127.0.0.1", True),
        ("GET", {"Host": "localhost:8089"}, "127.0.0.1", True),
        ("GET", {"Host": "LOCALHOST"}, "127.0.0.1", True),
        ("GET", {"Host": "[::1]:8089"}, "::1", True),
        ("GET", {"Host": "127.0.0.2:1"}, "127.0.0.2", True),
        ("GET", {"Host": "evil.example:8089"}, "127.0.0.1", False),  # DNS rebinding
        ("GET", {"Host": "127.0.0.1.evil.example"}, "127.0.0.1", False),
        ("GET", {"Host": "localhost@evil.example"}, "127.0.0.1", False),
        ("GET", {}, "127.0.0.1", False),
        ("GET", {"Host": "[::1"}, "127.0.0.1", False),
        ("GET", {"Host": "10.0.0.7:8089"}, "127.0.0.1", False),
        ("GET", {"Host": "10.0.0.7:8089"}, "0.0.0.0", True),  # an address cannot be rebound
        ("GET", {"Host": "[fe80::1]:8089"}, "::", True),
        ("GET", {"Host": "LocalHost:8089"}, "0.0.0.0", True),
        ("GET", {"Host": f"{socket.gethostname()}:8089"}, "0.0.0.0", True),
        ("GET", {"Host": "bench.example"}, "0.0.0.0", True),  # its --web-name
        ("GET", {"Host": "bench.example"}, "127.0.0.1", True),  # of a proxy before it
        ("GET", {"Host": "evil.example:8089"}, "0.0.0.0", False),  # DNS rebinding
        ("GET", {"Host": "evil.example:8089"}, "10.0.0.7", False),
        ("POST", {"Host": "evil.example", "Origin": "http://evil.example"}, "0.0.0.0", False),
        ("GET", {}, "0.0.0.0", False),
        ("GET", {"Host": "127.0.0.1:8089", "Origin": "http://evil.example"}, "127.0.0.1", True),  # it cannot be read
        ("POST", {"Host": "127.0.0.1:8089"}, "127.0.0.1", True),  # no browser
        ("POST", {"Host": "127.0.0.1:8089", "Origin": "http://127.0.0.1:8089"}, "127.0.0.1", True),
        ("POST", {"Host": "localhost:8089", "Origin": "http://localhost:8089"}, "127.0.0.1", True),
        ("POST", {"Host": "localhost:8089", "Origin": "http://127.0.0.1:8089"}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Origin": "http://127.0.0.1:9"}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Origin": "http://evil.example"}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Origin": "null"}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Origin": ""}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Origin": "http://[x"}, "127.0.0.1", False),
        ("POST", {"Host": "bench.example", "Origin": "https://bench.example"}, "0.0.0.0", True),  # TLS before us
        ("POST", {"Host": "bench.example", "Origin": "https://evil.example"}, "0.0.0.0", False),
        ("POST", {"Host": "127.0.0.1:8089", "Sec-Fetch-Site": "cross-site"}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Sec-Fetch-Site": "same-site"}, "127.0.0.1", False),
        ("POST", {"Host": "127.0.0.1:8089", "Sec-Fetch-Site": "same-origin"}, "127.0.0.1", True),
        ("DELETE", {"Host": "127.0.0.1:8089", "Origin": "http://evil.example"}, "127.0.0.1", False),
    ],
)
def test_who_is_answered(method: str, headers: dict[str, str], bound: str, well: bool) -> None:
    assert (refusal(method, headers, Door.of(bound, ["Bench.example"])) == "") == well


def test_with_a_login_any_name_may_be_ours_off_loopback() -> None:
    headers = {"Host": "any.example"}
    assert refusal("GET", headers, Door.of("0.0.0.0", login=True)) == ""
    assert "any.example" in refusal("GET", headers, Door.of("127.0.0.1", login=True))


@pytest.mark.parametrize("name", ["http://bench.example", "bench.example:8089", "", "a/b"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(UsageError, match="is no host name"):
        Door.of("0.0.0.0", [name])


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.9.9.9", True), ("0.0.0.0", False),
     ("10.0.0.1", False), ("bench.example", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) == local


def test_an_account_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDBENCH_WEB_USER", raising=False)
    monkeypatch.setenv("PDBENCH_WEB_PASSWORD", "p\u00e4ss")
    with pytest.raises(UsageError, match="PDBENCH_WEB_USER"):
        Account.from_environment()
    monkeypatch.setenv("PDBENCH_WEB_USER", "me")
    account = Account.from_environment()
    assert account.admits("me", "p\u00e4ss")
    assert not account.admits("me", "pass")
    assert not account.admits("you", "p\u00e4ss")
    assert not account.admits("", "")
    assert "p\u00e4ss" not in repr(account)
