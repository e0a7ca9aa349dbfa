"""The accounts of an arm: all three for a server of ours, none invented for one that is not; the schema holds."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from pdbench import schema
from pdbench.accounts import server_account
from pdbench.serverside import ServerSide
from tests.unit.measure.helpers import frames, request
from tests.unit.measure.serverhelp import CHUNKED, MIXED, SPLIT, Simulated, plan, simulated

COST = {"prefill_ms_per_token": 0.1, "decode_ms_per_step": 10.0, "transfer_gb_per_s": 1.0}
LOAD = plan((0, 100, 30), (3, 120, 30), (50, 500, 4), (201, 800, 4))


def accounts_of(run: Simulated) -> dict[str, Any]:
    return server_account("sim", {0: run.side}, run.requests, run.tokens, devices=["cpu:0", "cpu:1"])


def check(found: dict[str, Any]) -> None:
    """Against the parts of the arm's schema."""
    defs = schema.load("compare")["$defs"]
    wanted = {"type": "object", "additionalProperties": False, "$defs": defs, "required": ["separation"]}
    wanted["properties"] = {k: defs["arm"]["properties"][k] for k in ("separation", "handoff_split", "interference")}
    jsonschema.Draft202012Validator(wanted).validate(json.loads(json.dumps(found, allow_nan=False)))


@pytest.mark.parametrize("workers", [MIXED, CHUNKED, SPLIT], ids=["prefill_first", "chunked", "split"])
def test_all_three_accounts(workers: list[dict[str, Any]]) -> None:
    found = accounts_of(simulated(workers, COST, LOAD))
    check(found)
    assert set(found) == {"separation", "handoff_split", "interference"}
    split = workers is SPLIT
    assert found["separation"]["status"] == ("proven" if split else "not available")
    assert (found["interference"]["stall_ms_per_1k_tokens"] > 0) is not split
    assert ("transfer" in found["handoff_split"]["parts_ms"]) is split


def test_runs_are_put_together() -> None:
    run = simulated(SPLIT, COST, LOAD)
    one = accounts_of(run)
    both = server_account("sim", {0: run.side, 1: run.side}, run.requests, run.tokens)
    assert both["interference"]["gaps"] == 2 * one["interference"]["gaps"]
    assert both["handoff_split"]["requests"] == one["handoff_split"]["requests"]  # the client knows one pair
    assert both["separation"]["status"] == "proven"


def test_a_server_that_is_not_ours() -> None:
    found = server_account("v", {0: ServerSide()}, *frames(request(0, 10, [10])))
    check(found)
    assert set(found) == {"separation"}
    assert "no proof available" in found["separation"]["reasons"][0]
