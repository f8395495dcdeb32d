"""The house rules: imports run one way, modules stay small, pins agree, numbers come from files."""

import ast
import graphlib
import re
import tomllib
from pathlib import Path

import pytest
from conftest import PROJECT

PACKAGE = PROJECT / "minimind_core"
LAYERS = [
    {"errors", "files", "config", "mixture", "settings"},
    {"devices", "texts"},
    {"collection"},
    {"conversations"},
    {"modeling"},
    {"training"},
    {"inference"},
    {"evaluation"},
    {"experiments"},
    {"reporting"},
    {"ui"},
    {"cli"},
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Absolute names of everything a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def layer(name: str) -> int:
    return next(i for i, members in enumerate(LAYERS) if name in members)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_imports_never_run_back(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if (
            parts[0] == "minimind_core"
            and len(parts) > 1
            and (PACKAGE / parts[1]).exists() | (PACKAGE / f"{parts[1]}.py").exists()
        ):
            assert layer(parts[1]) <= layer(own), f"{own} imports {name}"
    heavy = {name.split(".")[0] for name in imports(path)}
    if own in ("collection", "conversations"):
        assert "torch" not in heavy
    if "matplotlib" in heavy:
        assert own == "ui" or path.name in ("figures.py", "drawings.py")
    if "ipywidgets" in heavy:
        assert own == "ui"


def test_no_module_imports_itself_through_others():
    own = {".".join(path.relative_to(PROJECT).with_suffix("").parts): path for path in MODULES}
    graph = {name: imports(path) & own.keys() for name, path in own.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted((PROJECT / "scripts").glob("*.py")), PROJECT / "go.py"], ids=lambda p: p.name
)
def test_modules_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 42, node.name
            assert len(node.args.args) + len(node.args.kwonlyargs) <= 7, node.name
    assert "sys.path" not in text and "filterwarnings" not in text and "trust_remote_code" not in text
    assert all("weights_only=True" in line for line in text.splitlines() if "torch.load(" in line)


def pins() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    return dict(
        re.fullmatch(r"([\w.\-]+)==(\S+)", line).groups()
        for line in lines
        if line and not line.startswith("#")
    )


def test_environment_yml_has_the_same_pins_as_constraints():
    locked = {name.lower().replace("_", "-"): version for name, version in pins().items()}
    named = re.findall(
        r"^\s+- ([\w\-]+)==(\S+)$", (PROJECT / "environment.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = [*wanted["dependencies"], *wanted["optional-dependencies"]["test"]]
    assert {name for name, _ in named} == {re.match(r"[\w\-]+", item)[0] for item in direct}
    assert all(locked[name] == version for name, version in named)


def test_makefile_and_go_know_the_same_tasks():
    makefile = (PROJECT / "Makefile").read_text()
    tasks = set(re.search(r"\.PHONY: (.*)", makefile)[1].split())
    go = ast.parse((PROJECT / "go.py").read_text(encoding="utf-8"))
    table = next(n for n in go.body if isinstance(n, ast.AnnAssign) and n.target.id == "TASKS")
    assert tasks == {"help", *(key.value for key in table.value.keys)}
