"""Verbs for named experiments."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.ledger import OUTCOMES
from minimind_core.experiments.matrix import perform_all
from minimind_core.experiments.results import finished, result_file
from minimind_core.experiments.runner import perform
from minimind_core.experiments.settings import Experiment, load_experiments


def train_experiment(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Train and score one experiment here."""
    experiment, *others = chosen(workbook, [arguments.experiment])
    if others:
        raise WorkbookError(
            f"{arguments.experiment} 是一组实验。一组用 minimind experiments {arguments.experiment}；"
            f"这里写其中一个，例如 {experiment.name}。"
        )
    with tqdm(unit="步", disable=None) as bar:
        result = perform(workbook, experiment, arguments.size, arguments.kdconv, lambda record: bar.update())
    print(
        f"{experiment.name}（{experiment.about}）：{result['run']['rows']} 行，"
        f"{result['run']['steps']} 步，最后损失 {result['train_loss']:.3f}"
    )
    for suite, label in OUTCOMES.items():
        score = result["scores"][suite]
        if score["n"]:
            print(f"  {score['share']:7.1%}  {label}：{score['right']}/{score['n']}")
    print(
        f"已写入 {result_file(workbook, experiment.name, arguments.size)}；"
        f"对话：minimind chat --run {experiment.name}"
    )
    return 0


def experiments(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """List all experiments, or perform the named ones; exit status 1 when one has failed."""
    selected = chosen(workbook, arguments.names)
    if not arguments.names:
        width = max(len(item.name) for item in selected)
        for item in selected:
            print(
                f"{'✓' if finished(workbook, item, arguments.size) else ' '} "
                f"{item.group:10}{item.name:{width}}  {item.about}"
            )
        return 0
    failed = 0
    outcomes = perform_all(
        workbook, selected, arguments.size, arguments.kdconv, arguments.jobs, arguments.scheduler
    )
    for name, problem in tqdm(outcomes, unit="项", disable=None):
        failed += bool(problem)
        print(f"{name}：{problem or '完成'}", flush=True)
    print(f"共 {len(selected)} 项，失败 {failed} 项。再运行一次只补没有完成的。")
    return 1 if failed else 0


def chosen(workbook: Workbook, names: list[str]) -> list[Experiment]:
    """Experiments by name or group; all when none is named."""
    known = load_experiments(workbook.root / "experiments.toml")
    groups = {item.group for item in known.values()}
    unknown = [name for name in names if name not in known and name not in groups]
    if unknown:
        raise WorkbookError(
            f"没有实验 {'、'.join(unknown)}。可用的组："
            f"{'、'.join(sorted(groups))}；实验：{'、'.join(known)}。"
        )
    return [item for item in known.values() if not names or item.name in names or item.group in names]
