"""A stored run, read for pictures and exports: whatever is there is given, whatever is missing is said.

``store.read_run`` is strict and reads everything; a gate or a surface must not work on half a run. Somebody who looks
at a run that was killed, is INVALID or has no server data wants to see what there is. So here reading is lazy, by arm
and by column, and ``notes`` tell in plain words what is missing and how to get it.

    run = open_run("results/20260102T030405Z-chat-1a2b3c4")
    run.numbers("disaggregated").measured().ttft_ms
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pdbench.errors import UsageError, did_you_mean
from pdbench.measure.slo import Objective, parse_objectives
from pdbench.rawtables import RawTables
from pdbench.store import SEGMENTS, check_version, read_json
from pdbench.views.devices import with_device
from pdbench.views.numbers import Flags, Numbers, Tokens, numbers_of

Document = dict[str, Any]
RESULTS = Path("results")
UNFINISHED = "unfinished"
"""The ``kind`` of the document that stands in for that of a run which was never sealed."""

_NUMBERS = (
    "pair", "index", "scheduled_ns", "sent_ns", "end_ns", "status", "warmup", "request_id", "output_tokens", "chunks",
)  # fmt: skip
_SHOWN = (
    "arm", "pair", "index", "request_id", "status", "warmup", "http_status", "error", "scheduled_ns", "sent_ns",
    "end_ns", "planned_prompt_tokens", "planned_output_tokens", "prompt_tokens", "output_tokens", "chunks",
    "token_source", "note",
)  # fmt: skip


@dataclass(slots=True)
class StoredRun:
    """One run. ``document``: its summary (of an unfinished one, what its records give; ``kind`` is "unfinished").
    ``manifest`` is ``None`` where it was never sealed, or only a summary is there. ``notes``: what is missing, each
    with its remedy."""

    path: Path
    document: Document
    manifest: Document | None
    notes: list[str]
    tables: RawTables = field(repr=False)
    _numbers: dict[str, Numbers] = field(default_factory=dict, repr=False)
    _rows: dict[str, Flags] = field(default_factory=dict, repr=False)
    _frames: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return str(self.document.get("run") or self.path.name)

    @property
    def kind(self) -> str:
        return str(self.document.get("kind", ""))

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm of the document, then those that only have records."""
        named = self.document.get("arms")
        return tuple(dict.fromkeys([*(named if isinstance(named, dict) else ()), *self.tables.arms("requests")]))

    @property
    def base(self) -> str | None:
        """What the others are compared to; ``None`` without an arm."""
        config = (self.manifest or {}).get("config") or {}
        for declared in (self.document.get("base"), config.get("base")):
            if declared in self.arms:
                return str(declared)
        return self.arms[0] if self.arms else None

    @property
    def objectives(self) -> list[Objective]:
        return parse_objectives([str(text) for text in self.document.get("slo") or ()])

    @property
    def set_aside(self) -> tuple[int, ...]:
        """Pairs that a gate ran again: their first try counts for nothing."""
        return tuple(int(one["pair"]) for one in self.document.get("set_aside") or ())

    def numbers(self, arm: str) -> Numbers:
        """Every request of an arm and its gaps, warm-up included; empty where no records are stored. Raises
        ``UsageError`` for an unknown arm, and for records that name a request twice."""
        self._check(arm)
        if arm not in self._numbers:
            rows = self.tables.columns("requests", _NUMBERS, arm)
            chunks = self.tables.columns("tokens", ("pair", "index", "t_ns", "n_tokens"), arm)
            try:
                found = numbers_of(_columns(rows), _tokens(chunks))
            except (TypeError, ValueError) as error:
                raise UsageError(str(error), where=str(self.path), remedy="run again") from None
            # A request whose tokens were lost with a torn file did not fail: nothing is known of it.
            lost = (found.status == "ok") & ~found.completed & (_number(rows, "chunks", found) > 0)
            self._rows[arm] = ~np.isin(found.pair, self.set_aside) & ~lost
            self._numbers[arm] = found.only(self._rows[arm])
        return self._numbers[arm]

    def requests(self, arm: str) -> pd.DataFrame:
        """The client's table of an arm, row by row as in ``numbers``, without its list columns."""
        self.numbers(arm)
        if ("requests", arm) not in self._frames:
            found = self.tables.frame("requests", arm, _SHOWN)
            self._frames["requests", arm] = found.loc[self._rows[arm]].reset_index(drop=True)
        return self._frames["requests", arm]

    def lifecycles(self, arm: str) -> pd.DataFrame:
        """The server's stamps, one row a request, with what the client knows of it: ``warmup``, ``index`` and
        ``scheduled_ns``. Empty where the server tells none."""
        if ("joined", arm) not in self._frames:
            self._frames["joined", arm] = self._joined(self._frame("server", arm), self.numbers(arm))
        return self._frames["joined", arm]

    def steps(self, arm: str) -> pd.DataFrame:
        """The server's steps, each with its ``device``. Empty where the server tells none."""
        if ("devices", arm) not in self._frames:
            steps = self._frame("steps", arm)
            self._frames["devices", arm] = with_device(steps) if len(steps) else steps
        return self._frames["devices", arm]

    def _frame(self, table: str, arm: str) -> pd.DataFrame:
        self._check(arm)
        if (table, arm) not in self._frames:
            found = self.tables.frame(table, arm)
            if len(found) and self.set_aside:
                found = found.loc[~found["pair"].isin(self.set_aside).to_numpy(dtype=bool)].reset_index(drop=True)
            self._frames[table, arm] = found
        return self._frames[table, arm]

    def _joined(self, server: pd.DataFrame, numbers: Numbers) -> pd.DataFrame:
        if not len(server) or "request_id" not in server:
            return server
        keys = zip(numbers.pair.tolist(), numbers.request_id.tolist(), strict=True)
        place = {key: row for row, key in enumerate(keys)}
        mine = zip(server["pair"].to_numpy(dtype=np.int64).tolist(), server["request_id"].tolist(), strict=True)
        rows = np.array([place.get(key, -1) for key in mine], dtype=np.int64)
        known = rows >= 0
        warmup, index, due = np.zeros(len(rows), dtype=bool), np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        warmup[known] = numbers.warmup[rows[known]]
        index[known], due[known] = numbers.index[rows[known]], numbers.scheduled_ns[rows[known]]
        return server.assign(warmup=warmup, index=index, scheduled_ns=due)

    def _check(self, arm: str) -> None:
        if arm not in self.arms:
            raise UsageError(f"no arm '{arm}'", where=str(self.path), remedy=did_you_mean(arm, list(self.arms)))


def open_run(text: str) -> StoredRun:
    """``text``: a run's directory, the name of one in ``results/``, or a document (``summary.json``, ``verdict.json``).

    Raises ``UsageError`` for what is none of these, for a document that cannot be read, and for one of another version
    of the schema. Anything else that is missing is told in ``notes``.
    """
    path = Path(text) if Path(text).exists() else RESULTS / text
    if not path.exists():
        raise UsageError(
            "no stored run: No such file or directory", where=str(path), remedy="give the directory that a run printed"
        )
    return _of_file(path) if path.is_file() else _of_folder(path)


def _of_file(path: Path) -> StoredRun:
    document = read_json(path)
    check_version(document, path)
    beside = path.parent / "manifest.json"
    manifest, torn = _manifest(beside)
    if beside.is_file() and document.get("run") == (path.parent.name if torn else (manifest or {}).get("run")):
        found = _of_folder(path.parent)
        found.document = document
        found.notes += [note for note in _mended(document) if note not in found.notes]
        return found
    note = "only the summary is here, without the records: give the run's directory for curves and timelines"
    return StoredRun(path, document, None, [note, *_mended(document)], RawTables(()))


def _manifest(path: Path) -> tuple[Document | None, str]:
    """The manifest, or why it cannot be read. Raises ``UsageError`` for one of another version."""
    if not path.is_file():
        return None, ""
    try:
        manifest = read_json(path)
    except UsageError:
        return None, "manifest.json is torn: the command, the versions and the base are not known; run it again"
    check_version(manifest, path)
    return manifest, ""


def _mended(document: Document) -> list[str]:
    """Drop arms that are none, so that whoever reads a document may rely on a mapping of mappings; what was dropped."""
    arms = document.get("arms")
    if "arms" not in document or (isinstance(arms, dict) and all(isinstance(arm, dict) for arm in arms.values())):
        return []
    kept = {name: arm for name, arm in arms.items() if isinstance(arm, dict)} if isinstance(arms, dict) else {}
    document["arms"] = kept
    return ["the summary's figures by arm cannot be read and are left out; run it again"]


def _of_folder(path: Path) -> StoredRun:
    manifest_path, summary_path, segments = path / "manifest.json", path / "summary.json", path / SEGMENTS
    if not any(one.exists() for one in (manifest_path, summary_path, segments)):
        raise UsageError(
            "no stored run: neither manifest.json nor summary.json is in it",
            where=str(path),
            remedy="give the directory that a run printed",
        )
    manifest, torn = _manifest(manifest_path)
    tables = RawTables.of_segments(segments) if manifest is None and segments.is_dir() else RawTables.of_folder(path)
    notes = [*([torn] if torn else []), *tables.torn]
    if summary_path.is_file():
        document = read_json(summary_path)
        if manifest is None:
            check_version(document, summary_path)
        if manifest is None and not torn:
            notes.insert(0, "the run was not sealed (no manifest.json): it was killed at its very end; run it again")
    else:
        document = unfinished_document(path, tables)
        gone = "summary.json is gone: its figures are made anew, without a verdict"
        left = f"the run is unfinished: {_UNFINISHED}; what its ended repetitions left is shown"
        notes.insert(0, left if manifest is None and not torn else gone)
    if "kind" not in document:
        document = _filled(document, manifest, path)
    notes += _mended(document)
    run = StoredRun(path, document, manifest, notes, tables)
    notes += _missing(run)
    return run


_UNFINISHED = "it was killed, or is still going"


def unfinished_document(path: Path, tables: RawTables) -> Document:
    """What the records of an unfinished run give: an INVALID document of kind "unfinished", figures by arm."""
    from pdbench.measure.metrics import summarise

    arms: Document = {}
    for arm in tables.arms("requests"):
        requests, tokens = tables.frame("requests", arm), tables.frame("tokens", arm)
        try:
            entry = summarise(requests, tokens, [], 1)
        except ValueError as error:  # a request twice
            raise UsageError(str(error), where=str(path), remedy="run again") from None
        entry.get("throughput", {}).pop("good_requests_per_s_per_device", None)
        entry.get("throughput", {}).pop("good_requests_per_s", None)
        arms[arm] = entry
    pairs = {arm: len(set(tables.columns("requests", ("pair",), arm)["pair"].tolist())) for arm in arms}
    workload = "-".join(path.name.split("-")[1:-1]) or path.name
    reason = {"message": f"the run is unfinished: {_UNFINISHED}", "remedy": "run it again to its end"}
    return {
        "schema_version": 1,
        "kind": UNFINISHED,
        "run": path.name,
        "workload": {"name": workload, "arrivals": {}},
        "slo": [],
        "pairs": min(pairs.values(), default=0),
        "fingerprint": {},
        "validity": {"status": "INVALID", "reasons": [reason]},
        "arms": arms,
        "sentence": f"No verdict: the run is unfinished ({_UNFINISHED}).",
    }


def _filled(document: Document, manifest: Document | None, path: Path) -> Document:
    """A part of a run (its ``saturation/``, say) has figures and no head: give it one."""
    known = manifest or {}
    reason = {"message": "the stored figures say nothing of their validity", "remedy": "look at the run they belong to"}
    head = {
        "schema_version": 1, "kind": str(known.get("kind", "")), "run": str(known.get("run", path.name)), "slo": [],
        "validity": {"status": "INVALID", "reasons": [reason]}, "arms": {}, "sentence": "",
    }  # fmt: skip
    return {**head, **document}


def _missing(run: StoredRun) -> list[str]:
    """What pictures will miss."""
    rows, notes = run.tables.counts("requests"), []
    if not run.tables.has("tokens") and run.tables.has("requests"):
        notes.append("the stamps of the tokens are gone (tokens.parquet): no latency can be drawn; run it again")
    if not run.tables.has("requests"):
        return ["no records are stored (requests.parquet): curves and timelines cannot be drawn; run it again"]
    if not sum(rows.values()):
        notes.append("no request was recorded: nothing was offered before the run ended; run it again")
    stamped, stepped = run.tables.counts("server"), run.tables.counts("steps")
    silent = [arm for arm in run.arms if rows.get(arm) and not (stamped.get(arm) and stepped.get(arm))]
    if silent:
        notes.append(
            f"no server data of {', '.join(silent)}: prefill shading, Gantt, hand-off and interference need a pdserve"
            " that lived to the end of the run (other servers do not tell)"
        )
    notes += [
        f"{arm}: the server's books hold {stamped[arm]} of {rows[arm]} requests"
        for arm in run.arms
        if arm not in silent and 0 < stamped.get(arm, 0) < rows.get(arm, 0)
    ]
    if run.set_aside:
        shown = ", ".join(str(pair + 1) for pair in run.set_aside)
        notes.append(f"pair {shown} was run again: the try that was set aside is not drawn")
    return notes


def _number(rows: Mapping[str, npt.NDArray[Any]], name: str, numbers: Numbers) -> npt.NDArray[np.float64]:
    return np.asarray(rows.get(name, np.zeros(len(numbers))), dtype=np.float64)


def _whole(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)


def _tokens(chunks: Mapping[str, npt.NDArray[Any]]) -> Tokens:
    pair, index, t_ns, n_tokens = (_whole(chunks[name]) for name in ("pair", "index", "t_ns", "n_tokens"))
    return Tokens(pair=pair, index=index, t_ns=t_ns, n_tokens=n_tokens)


def _columns(rows: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """As ``numbers_of`` takes them, of a table that may lack columns (an early run) or rows."""
    size = len(next(iter(rows.values()), ()))
    found = {name: _whole(rows[name]) for name in ("pair", "index", "scheduled_ns")}
    for name in ("sent_ns", "end_ns", "output_tokens"):
        found[name] = np.asarray(rows.get(name, np.full(size, np.nan)), dtype=np.float64)
    for name in ("status", "request_id"):
        found[name] = np.asarray(rows.get(name, np.full(size, "", dtype=object)), dtype=object)
    found["warmup"] = np.asarray(rows.get("warmup", np.zeros(size, dtype=bool)), dtype=bool)
    return found
