"""Tiny fakes: a two-layer model, a small project folder, and no way out of this machine."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minimind_core.config import ModelConfig, Workbook, load_workbook
from minimind_core.modeling.checkpoint import save_base
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import load_tokenizer
from minimind_core.reporting.browser import BROWSER_HELP, browser_path

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path.parent.name for path in (PROJECT / "examples").glob("*/workbook.toml"))
MUSIC = ("音乐", "歌手", "歌曲", "专辑", "唱片", "歌名", "演唱", "周杰伦", "旋律小队", "小音")
TINY = ModelConfig(
    hidden_size=32, n_layers=2, n_heads=4, n_kv_heads=2, intermediate_size=48, max_positions=256
)
FACTS = """subject,attribute,value,source_url,retrieved
周杰伦,出生日期,1979年1月18日,https://example.org/a,2026-01-01
陶喆,出生日期,1969年7月11日,https://example.org/b,2026-01-01
《范特西》,专辑歌手,周杰伦,https://example.org/c,2026-01-01
《范特西》,发行年份,2001年,https://example.org/c,2026-01-01
《小镇姑娘》,原唱,陶喆,https://example.org/d,2026-01-01
"""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly that the browser tests did not run, and what they need."""
    if (
        any("browser" in report.keywords for report in terminalreporter.stats.get("skipped", []))
        and browser_path() is None
    ):
        terminalreporter.write_line(f"浏览器测试没有运行。{BROWSER_HELP}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> object:
    """Let fixtures know that a test has failed, so that they can keep what helps to see why."""
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report


@pytest.fixture(autouse=True)
def no_outside_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def load_script(name: str):
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_model(config: ModelConfig = TINY, seed: int = 0) -> MiniMind:
    """A model whose every matrix is random, residual outputs included, so that all paths matter."""
    torch.manual_seed(seed)
    model = MiniMind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.15)
    return model.eval()


def example_workbook(folder: Path, example: str) -> Workbook:
    """A project folder with an example's two files, on the shipped base."""
    for name in ("workbook.toml", "facts.csv"):
        shutil.copy(PROJECT / "examples" / example / name, folder / name)
    return replace(load_workbook(folder), base=PROJECT / "weights" / "base")


def is_shipped() -> bool:
    """Whether facts and texts are the shipped example's, not a team's own."""
    facts = PROJECT / "dataset" / "facts.csv"
    return (
        PROJECT / "dataset" / "music" / "wordings.toml"
    ).is_file() and "《小镇姑娘》,原唱," in facts.read_text(encoding="utf-8-sig")


shipped_only = pytest.mark.skipif(
    not is_shipped(), reason="holds for the shipped example; these are a team's own"
)


@pytest.fixture(scope="session")
def tokenizer():
    """The shipped tokenizer."""
    return load_tokenizer(PROJECT / "weights" / "base" / "tokenizer.json")


@pytest.fixture
def model() -> MiniMind:
    """A tiny random model."""
    return random_model()


@pytest.fixture
def project(tmp_path: Path, tokenizer) -> Path:
    """A project folder with five facts and a tiny random base."""
    save_base(random_model(), tokenizer, tmp_path / "weights" / "base")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "facts.csv").write_text(FACTS, encoding="utf-8")
    shutil.copytree(PROJECT / "dataset" / "questions", tmp_path / "dataset" / "questions")
    (tmp_path / "report").mkdir()
    shutil.copy(PROJECT / "report" / "report.typ", tmp_path / "report")
    shutil.copytree(PROJECT / "report" / "sections", tmp_path / "report" / "sections")
    shutil.copy(PROJECT / "tests" / "data" / "workbook.toml", tmp_path)
    return tmp_path


@pytest.fixture
def workbook(project: Path) -> Workbook:
    """The project's settings."""
    return load_workbook(project)
