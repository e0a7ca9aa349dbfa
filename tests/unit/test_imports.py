"""The house plan, kept by a test: imports point one way, and nothing heavy is imported by accident."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSES = {"pdbench": ROOT / "pdbench", "pdserve": ROOT / "backends" / "pdserve"}

# A room may import itself and rooms of a lower floor. Verbs stand above rooms, what people touch above verbs.
FLOORS = [
    {"errors", "__init__", "py"},
    {"units", "order", "sentence", "stopping", "serverside", "schema", "resources", "yamlfile", "fairness"},
    {"workload", "fleetspec"},
    {"measure"},
    {"stats", "hlog"},
    {"views"},
    {"store", "load", "target", "settings", "accounts", "seeker"},
    {"livestate"},
    {"live", "auto", "wording", "rawtables"},
    {"run", "document", "searched", "tuned", "stored"},
    {"summary", "stage"},
    {"saturation"},
    {"compare", "pairs"},
    {"simulate", "surface", "gate", "calibrate", "baseline", "heads"},
    {"search"},
    {"tune"},
    {"report"},
    {"web"},
    {"cli"},
    {"locustfile"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PURE = {
    "workload",
    "measure",
    "stats",
    "views",
    "units",
    "order",
    "sentence",
    "serverside",
    "fairness",
    "accounts",
    "auto",
}
PURE_MAY = {"numpy", "pandas", "scipy", "msgspec", "tokenizers", "pdbench"}
STEERING = {
    *(
        f"load/{name}.py"
        for name in ("steer", "shape", "process", "fleet", "away", "core", "muster", "round", "worker", "tick")
    ),
    *(f"web/{name}.py" for name in ("crew", "locustui", "serve")),
    "locustfile.py",
}


def imports(path: Path, *, deferred: bool = True) -> Iterator[str]:
    """Modules imported by a file, type-checking blocks left out; with ``deferred`` also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        todo += ast.iter_child_nodes(node)


def sources(house: str) -> list[Path]:
    return sorted(HOUSES[house].rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSES["pdbench"]).parts[0].removesuffix(".py")


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in sources("pdbench")} <= set(FLOOR)


@pytest.mark.parametrize("path", sources("pdbench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "pdbench" or len(parts) == 1 or parts[1] not in FLOOR or parts[1] == room:
            continue
        assert FLOOR[parts[1]] < FLOOR[room], f"{room} imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in sources("pdbench") if room_of(p) in PURE], ids=lambda p: str(p.relative_to(ROOT))
)
def test_pure_rooms_import_only_maths(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top in PURE_MAY or top in sys.stdlib_module_names, f"{path.name} imports {name}"
        assert top not in {"socket", "asyncio", "subprocess", "threading", "time"}, f"{path.name} imports {name}"


def test_no_import_cycles() -> None:
    modules = {
        "pdbench." + ".".join(p.relative_to(HOUSES["pdbench"]).with_suffix("").parts): p for p in sources("pdbench")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph = {name: {i for i in imports(path, deferred=False) if i in modules} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph[name] - {name}:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(("house", "other"), [("pdbench", "pdserve"), ("pdserve", "pdbench")])
def test_the_houses_do_not_know_each_other(house: str, other: str) -> None:
    for path in sources(house):
        assert other not in {name.split(".")[0] for name in imports(path)}, path


def test_heavy_modules_stay_where_they_belong() -> None:
    for path in sources("pdbench"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert "bokeh" not in tops or path == HOUSES["pdbench"] / "report" / "charts.py", path
        assert "torch" not in tops, path
        if str(path.relative_to(HOUSES["pdbench"])) not in STEERING:
            assert not tops & {"locust", "gevent"}, path


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_import_pdbench_is_light() -> None:
    assert not loaded_by("import pdbench") & {"torch", "locust", "gevent", "numpy", "pandas", "click"}


def test_help_is_light() -> None:
    """``pdbench --help`` must be quick; what makes it slow is imports, so these are what is tested."""
    loaded = loaded_by(
        "import contextlib, io\nfrom pdbench.cli.main import run\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert run(['--help']) == 0"
    )
    assert not loaded & {
        "torch",
        "locust",
        "gevent",
        "numpy",
        "pandas",
        "scipy",
        "rich",
        "yaml",
        "msgspec",
        "psutil",
        "bokeh",
        "jinja2",
    }


def test_engine_does_not_import_locust_or_pandas() -> None:
    loaded = loaded_by("import pdbench.load.engine")
    assert not loaded & {"torch", "locust", "gevent", "pandas", "scipy"}
