"""The zip that is handed in."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import minimind_core
from minimind_core.config import Workbook
from minimind_core.conversations.doctor import examine
from minimind_core.conversations.mixing import FILES, dataset_file
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.scoring import load_results, results_file
from minimind_core.experiments.results import finished, result_file
from minimind_core.experiments.settings import load_experiments
from minimind_core.files import read_record, replacing
from minimind_core.modeling.pth import tokenizer_folder
from minimind_core.reporting.document import REPORT_NAME, results_digest
from minimind_core.reporting.sections import unwritten
from minimind_core.training.run_files import file_sha256, run_folder

VIDEO = "运行示例.mp4"
CODE = (
    "minimind_core", "notebooks", "scripts", "benchmarks", "examples", "tests", "weights/base", "go.py",
    "Makefile", "pyproject.toml", "constraints.txt", "environment.yml", "README.md", "README_en.md",
    "CHANGELOG.md", "LICENSE",
)  # fmt: skip
OWN = (
    "report/report.typ", "report/original_runs.json", "report/sections", "report/INSTALL.md",
    "report/COMMANDS.md", "report/SHOW.md", "report/GLOSSARY.md", "report/LOG.md",
    "report/RESULTS.md", "report/RESULTS_en.md",
    "figures", "workbook.toml", "experiments.toml",
)  # fmt: skip
SKIPPED = ("__pycache__", ".ipynb_checkpoints", "raw")  # dataset/raw holds other people's text
EPOCH = (2026, 1, 1, 0, 0, 0)  # fixed file time: the same content gives the same zip


def readme_text(workbook: Workbook, run: str) -> str:
    """README.txt of the zip."""
    persona = workbook.persona
    return f"""{workbook.course} 大作业：{persona.topic}问答模型“{persona.name}”
队名：{persona.team}
成员：{"、".join(workbook.members)}

minimind/        代码、基座模型和训练好的适配器（runs/{run}）
dataset/         事实表与训练、验证、测试数据（JSONL，UTF-8）
{REPORT_NAME}    报告
{VIDEO}      运行示例（如有）

运行（需要 Python 3.11 或更新的版本）：
    cd minimind
    python3 go.py setup
    .venv/bin/minimind chat --run {run}        # Windows：.venv\\Scripts\\minimind chat --run {run}
重新训练并生成报告：
    python3 go.py report
"""


def collect(workbook: Workbook, run: str) -> dict[str, Path | str]:
    """Archive names with the file, or the text, that each holds."""
    report, adapter = workbook.root / "report" / REPORT_NAME, run_folder(workbook, run)
    for path, remedy in (
        (report, "minimind report"),
        (adapter / "adapter.safetensors", f"minimind train --run {run}"),
    ):
        if not path.is_file():
            raise WorkbookError(f"{path}: 还没有这个文件，不能打包。请先运行 {remedy}。")
    entries: dict[str, Path | str] = {REPORT_NAME: report, "README.txt": readme_text(workbook, run)}
    code = Path(minimind_core.__file__).parents[1]
    parts = [(code, name) for name in CODE] + [(workbook.root, name) for name in OWN]
    for root, name in parts:
        entries |= {f"minimind/{inner}": path for inner, path in files_below(root, root / name)}
    for path in own_results(workbook) + data_sources(workbook):
        entries[f"minimind/{path.relative_to(workbook.root).as_posix()}"] = path
    for path in (adapter / name for name in ("adapter.safetensors", "metrics.csv", "quiz.csv", "run.json")):
        if path.is_file():
            entries[f"minimind/runs/{run}/{path.name}"] = path
    entries |= base_entries(workbook)
    entries |= {f"dataset/{inner}": path for inner, path in files_below(workbook.dataset, workbook.dataset)}
    entries[f"dataset/{workbook.facts.name}"] = workbook.facts
    video = workbook.root / "report" / VIDEO
    return entries | ({VIDEO: video} if video.is_file() else {})


def base_entries(workbook: Workbook) -> dict[str, Path | str]:
    """The base where it is not the embedded one; one from outside the project gets a place inside it."""
    base, root = workbook.base, workbook.root
    inside = base.is_relative_to(root)
    place = base.relative_to(root).as_posix() if inside else f"weights/{base.name}"
    if base.suffix == ".pth":
        tokenizer = tokenizer_folder(base) / "tokenizer.json"
        files = {place: base, f"{place.rpartition('/')[0]}/tokenizer.json": tokenizer}
    else:
        files = {f"{place}/{inner}": path for inner, path in files_below(base, base)}
    entries: dict[str, Path | str] = {f"minimind/{name}": path for name, path in files.items()}
    if not inside:
        text = (root / "workbook.toml").read_text(encoding="utf-8-sig")
        entries["minimind/workbook.toml"] = re.sub(r"(?m)^(\s*base\s*=\s*).*$", rf'\g<1>"{place}"', text)
    return entries


def files_below(root: Path, start: Path) -> Iterator[tuple[str, Path]]:
    """Files at or below `start` with their names from `root` on; hidden and skipped ones are left out."""
    for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
        inner = path.relative_to(root)
        if path.is_file() and not set(inner.parts) & set(SKIPPED) and not path.name.startswith("."):
            yield inner.as_posix(), path


def own_results(workbook: Workbook) -> list[Path]:
    """Results that were made with these facts and this base, and measurements that depend on neither."""
    own = [results_file(workbook, name) for name in load_results(workbook)]
    known = load_experiments(workbook.root / "experiments.toml").values()
    own += [result_file(workbook, item.name) for item in known if finished(workbook, item)]
    others = [*workbook.results.glob("benchmark_*.json"), workbook.results / "dataset.json"]
    return [*own, *sorted(path for path in others if path.is_file())]


def data_sources(workbook: Workbook) -> list[Path]:
    """What the data files are made from; the code's copy makes the others again, `dataset/` has them all."""
    made = {dataset_file(workbook, name) for name in FILES} | {workbook.dataset / "samples.md"}
    folders = {workbook.dataset, workbook.texts}
    found = {path for folder in folders for _, path in files_below(folder, folder)} | {workbook.facts}
    return sorted(path for path in found - made if path.is_relative_to(workbook.root))


def obstacles(workbook: Workbook, run: str) -> list[str]:
    """Reasons why the zip must not be handed in yet."""
    found = []
    if any(name.startswith("成员") for name in workbook.members):
        found.append("workbook.toml 的 members 还是占位的名字：请换成真实姓名，再生成报告。")
    examples = unwritten(workbook)
    if examples:
        found.append(
            "报告里还有示例文字：请改写 report/sections/ 里的 "
            f"{'、'.join(examples)}，并删去第一行，再生成报告。"
        )
    errors = [
        f
        for path in sorted(workbook.dataset.glob("*.jsonl"))
        for f in examine(path, own=workbook.persona.name)
        if f.error
    ]
    if errors:
        found.append(
            f"数据有 {len(errors)} 个错误，例如 {errors[0]} 请运行 minimind doctor dataset/*.jsonl。"
        )
    made = read_record(workbook.results / "report.json")
    report = workbook.root / "report" / REPORT_NAME
    if is_file_of(report, made.get("report_sha256")) and made["results"] != results_digest(workbook):
        found.append("报告不是用现在的测试结果生成的：请运行 minimind report，再打包。")
    filmed = read_record(workbook.results / "video.json")
    video, adapter = workbook.root / "report" / VIDEO, run_folder(workbook, run) / "adapter.safetensors"
    if is_file_of(video, filmed.get("video_sha256")) and filmed["adapter_sha256"] != file_sha256(adapter):
        found.append(f"report/{VIDEO} 录的不是这个模型：请运行 minimind demo 或自己重录，或者删掉它。")
    return found


def is_file_of(path: Path, digest: str | None) -> bool:
    """Whether a file is the one that was made here, and no other that a team put in its place."""
    return path.is_file() and file_sha256(path) == digest


def build_submission(workbook: Workbook, run: str = "main", draft: bool = False) -> tuple[Path, list[str]]:
    """Write TEAM_大作业.zip; returns its path and what a grader would miss.

    Placeholder names, errors in the data, a report older than the results and a video older than the model
    are refused, or listed in a draft.
    """
    entries = collect(workbook, run)
    missing = obstacles(workbook, run)
    if missing and not draft:
        raise WorkbookError(
            "还不能提交：\n"
            + "\n".join(f"- {text}" for text in missing)
            + "\n只想看看压缩包的样子，请加 --draft。"
        )
    if VIDEO not in entries:
        missing.append(f"没有 {VIDEO}：请运行 minimind demo（或自己录屏存为 report/{VIDEO}），再打包一次。")
    team = re.sub(r"[^\w-]", "_", workbook.persona.team)  # a slash or colon has no place in a file name
    target = workbook.root / f"{team}_大作业.zip"
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            data = content.encode() if isinstance(content, str) else content.read_bytes()
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return target, missing


def checklist(path: Path) -> list[tuple[str, bool, int]]:
    """The course's list: (part of the zip, whether it is there, its bytes before compression)."""
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    parts = ("minimind/", REPORT_NAME, "dataset/", "README.txt", VIDEO)
    found = [(part, [size for name, size in sizes.items() if name.startswith(part)]) for part in parts]
    return [(part, bool(own), sum(own)) for part, own in found]
