"""Our own routes under ``/pdbench``: the live page and its news, stop, the rate, the report, downloads, BokehJS."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request, send_file

from pdbench.errors import PdbenchError
from pdbench.web.fields import explain
from pdbench.web.runs import Runs

Aside = Callable[..., Any]
LIBRARY = "bokeh.min.js"
_NOTHING_YET = "There is no finished run on this page yet."


def blueprint(runs: Runs, aside: Aside) -> Blueprint:
    """``aside`` calls a function in another thread and waits for it without stopping the page."""
    views = Blueprint("pdbench", __name__, url_prefix="/pdbench")

    @views.get("")
    def live() -> Response:
        from pdbench.web.livepage import render

        return Response(aside(render, (runs.look(), runs.state)), mimetype="text/html")

    @views.get("/live.json")
    def news() -> Response:
        screen = runs.look()
        if screen is None:
            return jsonify({"number": 0, "state": runs.state})
        found = screen.news(request.args.get("since", 0, type=int))
        return jsonify({"number": screen.number, "state": runs.state, **found})

    @views.post("/stop")
    def stop() -> Response:
        return jsonify({"success": runs.stop()})

    @views.post("/rate")
    def rate() -> Response:
        try:
            runs.edit(request.form.get("rate", float("nan"), type=float))
        except PdbenchError as error:
            return jsonify({"success": False, "message": explain(error)})
        return jsonify({"success": True, "message": ""})

    @views.get("/report")
    def report() -> Response:
        return _with_folder(runs, lambda folder: send_file(aside(_report, (folder,)), mimetype="text/html"))

    @views.get("/download/<kind>")
    def download(kind: str) -> Response:
        makers: dict[str, Callable[[Path], Response]] = {
            "parquet": lambda folder: _attached(aside(_zipped, (folder,)), f"{folder.name}.zip"),
            "json": lambda folder: _attached(folder / "summary.json", f"{folder.name}.json"),
            "html": lambda folder: _attached(aside(_report, (folder,)), f"{folder.name}.html"),
        }
        if kind not in makers:
            return _said(f"There is no such download; there are {', '.join(makers)}.")
        return _with_folder(runs, makers[kind])

    @views.get(f"/static/{LIBRARY}")
    def library() -> Response:
        from pdbench.report.charts import static_dir

        return send_file(static_dir() / LIBRARY, mimetype="text/javascript", max_age=86400)

    @views.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        code = getattr(error, "code", 500)
        return _said(f"{type(error).__name__}: {error}", code if isinstance(code, int) else 500)

    return views


def _with_folder(runs: Runs, make: Callable[[Path], Response]) -> Response:
    """Of the last run that ended with a result; never of a path that somebody asks for."""
    ending = runs.screen.ending if runs.screen is not None else None
    if ending is None or ending.run_dir is None:
        return _said(_NOTHING_YET)
    return make(ending.run_dir)


def _said(text: str, code: int = 404) -> Response:
    return Response(text, code, mimetype="text/plain")


def _attached(what: Any, name: str) -> Response:
    return send_file(what, as_attachment=True, download_name=name)


def _report(folder: Path) -> Path:
    """``report.html`` of a run's folder, made when it is first asked for."""
    from pdbench.report.html.page import FILE_NAME, write_report

    path = folder / FILE_NAME
    return path if path.exists() else write_report(folder)


def _zipped(folder: Path) -> Any:
    """All Parquet files of the folder; they are compressed already."""
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever sends it
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.glob("*.parquet")):
            archive.write(path, f"{folder.name}/{path.name}")
    packed.seek(0)
    return packed
