from __future__ import annotations

import msgspec
import pytest

from pdbench.measure.records import RequestRecord, to_frames
from tests.unit.measure.helpers import frames, request


def test_frames_hold_integers_and_may_lack_some() -> None:
    requests, tokens = frames(request(1, 10, [5]), request(0, None, status="timeout", sent_ns=None, end_ns=None))
    assert requests["index"].tolist() == [0, 1]
    assert requests["chunks"].tolist() == [0, 2]
    assert str(requests["scheduled_ns"].dtype) == "int64"
    assert str(requests["sent_ns"].dtype) == "Int64"
    assert requests["sent_ns"].isna().tolist() == [True, False]
    assert tokens.columns.tolist() == ["arm", "pair", "index", "t_ns", "n_tokens"]
    assert tokens["t_ns"].tolist() == [1_010_000_000, 1_015_000_000]
    assert tokens["index"].tolist() == [1, 1]


def test_no_record_gives_the_same_columns() -> None:
    some, none = frames(request(0, 1)), to_frames([], "a", 0)
    for one, other in zip(some, none, strict=True):
        assert one.dtypes.to_dict() == other.dtypes.to_dict()


def test_a_record_survives_the_journal() -> None:
    record = request(3, 10, [5], user_lag_ns=[7, 8])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=RequestRecord) == record


def test_an_unknown_status_is_refused() -> None:
    data = msgspec.to_builtins(request(0, 1)) | {"status": "fine"}
    with pytest.raises(msgspec.ValidationError, match="status"):
        msgspec.convert(data, RequestRecord)
