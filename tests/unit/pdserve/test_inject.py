"""Requests dropped on purpose: how many, which, and never those of a client that only asks."""

from __future__ import annotations

import pytest

from pdserve.config import ConfigError, Inject, parse
from pdserve.inject import Dropper
from pdserve.simulate import Simulation
from tests.e2e.fake_service import FakeService, live
from tests.unit.pdserve.test_simulate import backend


def test_the_share_and_the_seed() -> None:
    drop = Dropper(Inject(drop="20%"))
    drawn = [drop() for _ in range(5000)]
    assert 0.18 < sum(drawn) / len(drawn) < 0.22
    again = Dropper(Inject(drop="20%"))
    assert drawn == [again() for _ in range(5000)]
    assert not any(Dropper(None)() for _ in range(100))
    assert all(Dropper(Inject(drop="100%"))() for _ in range(100))


@pytest.mark.parametrize("text", ["20", "120%", "-1%", "some", "0.2"])
def test_bad_shares(text: str) -> None:
    with pytest.raises(ValueError, match="drop reads like 20%"):
        Inject(drop=text)


def test_the_virtual_clock_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="the virtual clock drops nothing"):
        Simulation(parse({**backend("1p1d"), "inject": {"drop": "5%"}}))


def test_only_requests_with_an_id_are_dropped() -> None:
    service = FakeService()
    with live(service, drop=lambda: True) as server:
        assert server.complete(max_tokens=2).status == 200, "who only asks learns the truth"
        body = {"prompt": "one two", "max_tokens": 2, "stream": True}
        dropped = server.post("/v1/completions", body, {"X-Request-Id": "r1"})
    assert dropped.status == 500
    assert dropped.json["error"]["type"] == "server_error"
    assert len(service.submitted) == 1
    assert service.idle
