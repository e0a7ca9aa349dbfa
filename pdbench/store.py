"""Results on disk: one folder a run, raw rows in Parquet, written in segments and sealed by the manifest.

    results/20260102T030405Z-chat-1a2b3c4/
        manifest.json plan.parquet requests.parquet tokens.parquet server.parquet steps.parquet probes.parquet
        latency.hlog summary.json

While a run goes, each finished repetition is a segment of its own under ``segments/``, moved into place
whole; a kill loses no finished repetition. ``seal`` merges them and writes ``manifest.json`` last: a folder
without one is unfinished, and ``read_run`` then reads its segments. The same input gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pdbench.errors import UsageError
from pdbench.hlog import write_hlog
from pdbench.workload.plan import Plan

SCHEMA_VERSION = 1
SEGMENTS = "segments"


def _table(required: str, nullable: str = "", **others: pa.DataType) -> pa.Schema:
    """arm, pair and int64 columns, then columns of other types."""
    fields = [pa.field("arm", pa.string(), nullable=False), pa.field("pair", pa.int64(), nullable=False)]
    fields += [pa.field(name, pa.int64(), nullable=False) for name in required.split()]
    fields += [pa.field(name, pa.int64()) for name in nullable.split()]
    return pa.schema(fields + [pa.field(name, kind, nullable=False) for name, kind in others.items()])


SCHEMAS: dict[str, pa.Schema] = {
    "requests": _table(
        "index scheduled_ns planned_prompt_tokens planned_output_tokens reads max_events_per_read merged_events "
        "worst_gap_lag_ns write_ns",
        "sent_ns end_ns http_status prompt_tokens output_tokens",
        status=pa.string(),
        error=pa.string(),
        token_source=pa.string(),
        note=pa.string(),
        request_id=pa.string(),
        chunks=pa.int64(),
        warmup=pa.bool_(),
        user_lag_ns=pa.list_(pa.int64()),
    ),
    "tokens": _table("index t_ns n_tokens"),
}
_PLAN = pa.schema(
    [pa.field(name, pa.int64(), nullable=False) for name in ("pair", "index", "scheduled_ns")]
    + [pa.field(name, pa.int32(), nullable=False) for name in ("prompt_tokens", "output_tokens")]
    + [pa.field("warmup", pa.bool_(), nullable=False)]
)
# Only where prompts share text: for each request its pieces [id, tokens].
_PIECES = pa.field("segments", pa.list_(pa.list_(pa.int64())))
# What a backend tells about itself has the backend's own columns; these are always there.
_SERVER = pa.schema([pa.field("arm", pa.string()), pa.field("pair", pa.int64())])
_PROBES = (
    _table("")
    .append(pa.field("kernel", pa.string(), nullable=False))
    .append(pa.field("seconds", pa.float64(), nullable=False))
)
_TABLES = {"plan": _PLAN, **SCHEMAS, "server": _SERVER, "steps": _SERVER, "probes": _PROBES}


@dataclass(frozen=True, slots=True)
class Run:
    """What ``read_run`` found. ``manifest`` and ``summary`` are ``None`` in an unfinished run; ``torn`` names
    segments that could not be read."""

    path: Path
    manifest: dict[str, Any] | None
    summary: dict[str, Any] | None
    plan: pd.DataFrame
    requests: pd.DataFrame
    tokens: pd.DataFrame
    server: pd.DataFrame
    steps: pd.DataFrame
    torn: tuple[str, ...] = ()
    probes: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def sealed(self) -> bool:
        return self.manifest is not None


def new_run_dir(parent: Path, workload_name: str, sha7: str, now: datetime) -> Path:
    """Make ``parent/<utc>-<workload>-<sha7>`` (with ``-2`` and so on if it is taken) and return it.

    Raises ``UsageError`` naming ``-o`` if it cannot be made.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in workload_name)
    name = f"{stamp}-{safe}-{sha7}"
    for attempt in range(1, 1000):
        path = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                break
            continue
        except OSError as error:
            raise _unwritable(parent, error.strerror or str(error)) from None
        return path
    raise _unwritable(parent, "it is not a folder")


def _unwritable(parent: Path, reason: str) -> UsageError:
    return UsageError(f"cannot write results to {parent}: {reason}", where="-o", remedy="give -o DIR a writable folder")


class RunStore:
    """Writes one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._segments = path / SEGMENTS
        self._segments.mkdir(parents=True, exist_ok=True)

    def write_plan(self, plans: Plan | Sequence[Plan]) -> None:
        """Keep the plan of one pair, or of several; a second call for a pair replaces its plan."""
        for plan in [plans] if isinstance(plans, Plan) else plans:
            columns: dict[str, Any] = {
                "pair": [plan.pair] * len(plan),
                "index": list(range(len(plan))),
                "scheduled_ns": plan.scheduled_ns,
                "prompt_tokens": plan.prompt_tokens,
                "output_tokens": plan.output_tokens,
                "warmup": plan.warmup,
            }
            schema = _PLAN.append(_PIECES) if plan.segments else _PLAN
            if plan.segments:
                columns["segments"] = [[list(piece) for piece in pieces] for pieces in plan.segments]
            self._write(f"plan-{plan.pair:04d}", pa.table(columns, schema=schema))

    def append_run(self, requests: pd.DataFrame, tokens: pd.DataFrame) -> None:
        """Keep the rows of one repetition of one arm, as ``measure.records.to_frames`` gives them."""
        number = len(list(self._segments.glob("requests-*.parquet")))
        # Tokens first: requests without their tokens would read as failures, tokens without requests as
        # nothing.
        for name, frame in (("tokens", tokens), ("requests", requests)):
            table = pa.Table.from_pandas(frame, schema=SCHEMAS[name], preserve_index=False)
            self._write(f"{name}-{number:04d}", table.replace_schema_metadata(None))

    def write_probe(self, arm: str, pair: int, seconds: Mapping[str, float]) -> None:
        """Keep the calibration probe of one run, seconds by kernel; nothing where none was taken."""
        if seconds:
            number = len(list(self._segments.glob("probes-*.parquet")))
            rows = [{"arm": arm, "pair": pair, "kernel": k, "seconds": float(v)} for k, v in seconds.items()]
            self._write(f"probes-{number:04d}", pa.Table.from_pylist(rows, schema=_PROBES))

    def write_server(
        self,
        lifecycles: Sequence[Mapping[str, Any]],
        steps: Sequence[Mapping[str, Any]],
        *,
        arm: str = "",
        pair: int = 0,
    ) -> None:
        """Keep a backend's own stamps: one row a request, one row a step. A row's own ``arm`` and ``pair`` go
        before the arguments."""
        for name, rows in (("server", lifecycles), ("steps", steps)):
            if rows:
                number = len(list(self._segments.glob(f"{name}-*.parquet")))
                table = pa.Table.from_pylist([{"arm": arm, "pair": pair, **row} for row in rows])
                self._write(f"{name}-{number:04d}", table)

    def seal(self, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Merge the segments, write ``latency.hlog`` and ``summary.json``, and ``manifest.json`` last."""
        merged = {name: _merge(self._segments, name)[0] for name in _TABLES}
        for name, table in merged.items():
            if name in SCHEMAS or len(table):
                _replace(self.path / f"{name}.parquet", lambda path, table=table: _parquet(table, path))
        requests, tokens = (as_frame(merged[name]) for name in ("requests", "tokens"))
        _replace(self.path / "latency.hlog", lambda path: write_hlog(path, requests, tokens))
        write_json(self.path / "summary.json", summary)
        write_json(self.path / "manifest.json", {"schema_version": SCHEMA_VERSION, **manifest})
        shutil.rmtree(self._segments)

    def _write(self, name: str, table: pa.Table) -> None:
        _replace(self._segments / f"{name}.parquet", lambda path: _parquet(table, path))


def _parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _replace(path: Path, write: Any) -> None:
    """Write beside, then rename: a reader or a kill sees the old file or the new one, never half of it."""
    beside = path.with_name(f".{path.name}.part")
    write(beside)
    beside.replace(path)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document with two-space indent; inf and NaN become ``null``."""
    data = msgspec.json.format(msgspec.json.encode(document, enc_hook=_plain), indent=2) + b"\n"
    _replace(path, lambda beside: beside.write_bytes(data))


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not belong into a document")


def _merge(folder: Path, name: str) -> tuple[pa.Table, list[str]]:
    """The segments of one table in order, and the names of those that cannot be read."""
    tables, torn = [_TABLES[name].empty_table()], []
    for path in sorted(folder.glob(f"{name}-*.parquet")):
        try:
            tables.append(pq.read_table(path))
        except (pa.ArrowInvalid, OSError):
            torn.append(path.name)
    return pa.concat_tables(tables, promote_options="permissive"), torn


def check_version(document: Mapping[str, Any], path: Path) -> None:
    """Raises ``UsageError`` for a document of another version of the schema."""
    version = document.get("schema_version")
    if version == SCHEMA_VERSION:
        return
    age = "an older" if isinstance(version, int) and version < SCHEMA_VERSION else "another"
    raise UsageError(
        f"written by {age} version of pdbench: schema_version is {version}, expected {SCHEMA_VERSION}",
        where=str(path),
        remedy="read it with that version, or run again",
    )


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas: int64 where a column cannot be absent, nullable Int64 where it can."""
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    solid = [f.name for f in table.schema if f.type == pa.int64() and not f.nullable]
    return frame.astype(dict.fromkeys(solid, "int64"))


def read_run(path: Path) -> Run:
    """Read a run's folder, sealed or unfinished.

    Raises ``UsageError`` when it is not a run, or was written by another version of the schema.
    """
    manifest_path, segments = path / "manifest.json", path / SEGMENTS
    if not manifest_path.is_file():
        if not segments.is_dir():
            raise UsageError("not a run: no manifest.json", where=str(path), remedy="name a folder under results/")
        found = {name: _merge(segments, name) for name in _TABLES}
        frames: dict[str, Any] = {name: as_frame(table) for name, (table, _) in found.items()}
        torn = tuple(name for _, names in found.values() for name in names)
        return Run(path=path, manifest=None, summary=None, torn=torn, **frames)
    manifest = read_json(manifest_path)
    check_version(manifest, manifest_path)
    frames = {name: _read_table(path / f"{name}.parquet", name) for name in _TABLES}
    return Run(path=path, manifest=manifest, summary=read_json(path / "summary.json"), **frames)


def _read_table(path: Path, name: str) -> pd.DataFrame:
    if not path.is_file() and name not in SCHEMAS:
        return as_frame(_TABLES[name].empty_table())
    try:
        return as_frame(pq.read_table(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), remedy="run again") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ``UsageError`` that names it."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), remedy="run again") from None
    if not isinstance(document, dict):
        raise UsageError("is not a JSON object", where=str(path), remedy="run again")
    return document
