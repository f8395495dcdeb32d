"""Write the tables of README and RESULTS, Chinese and English, from report/results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from minimind_core.config import Workbook, load_workbook
from minimind_core.errors import WorkbookError, exit_with
from minimind_core.evaluation.scoring import load_results
from minimind_core.evaluation.suites import SUITES
from minimind_core.experiments.results import in_group
from minimind_core.experiments.settings import load_experiments
from minimind_core.files import read_json, write_text

PROJECT = Path(__file__).resolve().parents[1]
# what is counted beside the suites
RATES = {
    "over_refusal": (
        "过度拒答：学过的也说不知道（越低越好）",
        "over-refusal on known facts (lower is better)",
    ),
    "ended": ("自然结束", "answer ended by itself"),
    "repetition": ("复读（越低越好）", "repetition (lower is better)"),
}
ROWS = {name: (suite.label, suite.english) for name, suite in SUITES.items()} | RATES
COLUMNS = (
    (("base", "scores"), ("基座", "base")), (("lookup", "scores"), ("查表", "look-up")),
    (("rules", "scores"), ("规则", "rules")),
    (("main", "scores"), ("**模型的原话**", "**the model's own words**")),
    (("main", "checked_scores"), ("原话 + 核对", "with the check")),
)  # fmt: skip
NOTES = (
    "种子 {seed}，{trainable_parameters:,} 个可训练参数，训练 {minutes:.1f} "
    "分钟（{cpu_count} 核 CPU）；括号里是题数和 95% 区间："
    "每题一种说法的用 Wilson 区间，程序抽取的两行按问法成组重抽。",
    "Seed {seed}, {trainable_parameters:,} trainable parameters, {minutes:.1f} "
    "minutes of training on {cpu_count} CPU cores; counts and "
    "95 % intervals in brackets: Wilson where each question has a form of its "
    "own, a bootstrap over templates in the two drawn rows.",
)

NOT_YET = (
    "在现在的数据和基座上还没有做过：`minimind experiments {}`。",
    "Not yet run on the present data and base: `minimind experiments {}`.",
)

TRAINED = ("训练（有用词元）", "training (useful tokens)")
CONTENDERS = {
    "stock": ("原版设置（float32、补到 512）", "stock settings (float32, padded to 512)"),
    "trl_packed": ("TRL + PEFT，装箱，q、o 秩 8", "TRL + PEFT, packed, q and o of rank 8"),
    "ours_q_o_rank8": ("本项目，q、o 秩 8", "this workbook, q and o of rank 8"),
    "ours_q_o_rank8_trl_steps": (
        "本项目，q、o 秩 8，每步与 TRL 一样大",
        "this workbook, q and o of rank 8, steps as large as TRL's",
    ),
    "ours_default": ("本项目，默认", "this workbook, default"),
}
SERVED = (
    "服务（`minimind serve`）：{clients} 个客户端同时问 {seconds:.0f} 秒，{answers:,} 个回答，每秒 "
    "{answers_per_second:.0f} 个，中位等 {p50:.2f} 秒，最慢的百分之五等 {p95:.2f} 秒以上；丢了 {failed} 个，"
    "与同一题上次的回答不同的 {changed} 个（同时答的题变了，舍入也变，列在结果文件里）；"
    "内存从 {first:.0f} 到 {last:.0f} MiB。",
    "Server (`minimind serve`): {clients} clients at once for {seconds:.0f} s, {answers:,} answers, "
    "{answers_per_second:.0f} a second, median wait {p50:.2f} s, the slowest 5 % above {p95:.2f} s; "
    "{failed} lost, {changed} other than the last answer to the same question (other questions beside it, "
    "other rounding; the results file lists them); memory from {first:.0f} to {last:.0f} MiB.",
)
COMPARED = (
    "llama.cpp（{engine}）读导出的 GGUF，{dialogues} 段对话的贪心回答与我们相同的：{equal}。",
    "llama.cpp ({engine}) with the exported GGUF: of {dialogues} dialogues answered greedily, equal to ours: "
    "{equal}.",
)
ANSWERED = ("回答一题的毫秒数", "milliseconds an answer")
ANSWERERS = {
    "transformers": ("transformers 的 generate", "transformers' generate"),
    "ours": ("本项目", "this workbook"),
}
SHOWN = ("identity", "facts", "reverse", "follow", "unknown", "everyday", "ended")
# README's own table
MAIN_ROWS = {
    "facts": ("用新的说法问事实", "facts in new words"),
    "identity": ("问它是谁", "who it is"),
    "unknown": ("没学过的，说不知道", "unknown things declined"),
    "follow": ("追问，两到四轮", "follow-ups, two to four turns"),
    "everyday": ("日常话", "everyday talk"),
}
MAIN_COLUMNS = (
    (("base", "scores"), ("训练之前", "before training")),
    (("rules", "scores"), ("规则，没有模型", "rules, no model")),
    (("main", "scores"), ("训练之后", "after training")),
    (("main", "checked_scores"), ("训练之后 + 核对", "after training, with the check")),
)


def cell(score: dict) -> str:
    """A share with its count and interval."""
    return f"{score['share']:.1%} ({score['right']}/{score['n']}, {score['low']:.1%}–{score['high']:.1%})"


def scores_of(results: dict, columns: tuple, language: int) -> list[tuple[dict, str]]:
    """Scores and heading of every column for which there is a result."""
    return [
        (results[run][kind], labels[language])
        for (run, kind), labels in columns
        if kind in results.get(run, {})
    ]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score_rows(
    columns: list[tuple[dict, str]], labels: dict[str, tuple[str, str]], language: int, show: Callable
) -> str:
    """One row a suite, one column of scores a run; suites that nobody was asked are left out."""
    rows = (
        [names[language], *(show(scores[key]) for scores, _ in columns)]
        for key, names in labels.items()
        if any(scores[key]["n"] for scores, _ in columns)
    )
    return markdown([("测试", "test")[language], *(label for _, label in columns)], rows)


def main_run(workbook: Workbook) -> tuple[dict, dict]:
    """All results, and that of the main run."""
    results = load_results(workbook)
    if "main" not in results:
        raise WorkbookError("还没有运行 main 在这份数据上的结果。请先运行 minimind evaluate --run main。")
    return results, results["main"]


def table(root: Path, language: int) -> str:
    """The Markdown table; language 0 is Chinese, 1 English."""
    results, main = main_run(load_workbook(root))
    made = score_rows(scores_of(results, COLUMNS, language), ROWS, language, cell)
    run = main["run"]
    known = {key: run[key] for key in ("seed", "trainable_parameters", "cpu_count")}
    return f"{made}\n\n{NOTES[language].format(minutes=run['train_seconds'] / 60, **known)}"


def summary(root: Path, language: int) -> str:
    """README's table: five suites, per cent only."""
    results, _ = main_run(load_workbook(root))
    columns = scores_of(results, MAIN_COLUMNS, language)
    return score_rows(columns, MAIN_ROWS, language, lambda s: f"{s['share']:.0%}" if s["n"] else "")


def ablation(root: Path, language: int) -> str:
    """The way from stock settings to the default, one change a row."""
    results = in_group(load_workbook(root), "ablation")
    if not results:
        return NOT_YET[language].format("ablation")
    heads = [
        ("改了什么", "change")[language],
        *(ROWS[key][language] for key in SHOWN),
        ("训练分钟", "minutes of training")[language],
    ]
    rows = []
    defined = load_experiments(root / "experiments.toml")
    for name, result in results.items():
        scores = [result["scores"][key] for key in SHOWN]
        cells = [f"{score['right']}/{score['n']}" if score["n"] else "" for score in scores]
        cells.append(f"{result['run']['train_seconds'] / 60:.1f}")
        told = (defined[name].about, defined[name].english)[language]
        rows.append([told, *cells])
    return markdown(heads, rows)


def seeds(root: Path, language: int) -> str:
    """The default recipe from several seeds: own words / with the check, in per cent, and their mean."""
    workbook = load_workbook(root)
    _, main = main_run(workbook)
    pairs = {main["run"]["seed"]: (main["scores"], main["checked_scores"])}
    for result in in_group(workbook, "seeds").values():  # an experiment's scores are those after its check
        pairs[result["run"]["seed"]] = (result["own_scores"], result["scores"])
    columns = [(f"种子 {seed}", f"seed {seed}")[language] for seed in pairs] + [("平均", "mean")[language]]
    rows = []
    for key, labels in ROWS.items():
        shares = [tuple(scores[key]["share"] for scores in pair) for pair in pairs.values()]
        shares.append(tuple(sum(column) / len(shares) for column in zip(*shares, strict=True)))
        cells = [f"{own:.1%} / {checked:.1%}" for own, checked in shares]
        rows.append([labels[language], str(main["scores"][key]["n"]), *cells])
    return markdown([("测试", "test")[language], "n", *columns], rows)


def speed(root: Path, language: int) -> str:
    """The rivals of both benchmarks, each of which ran them on one machine, one after the other.

    Whoever could not run is left out.
    """
    folder = load_workbook(root).results
    remedy = "请先运行 benchmarks/ 里的同名程序。"
    training, answering = (
        read_json(folder / f"benchmark_{name}.json", remedy) for name in ("training", "generation")
    )
    size = answering.get("batch", 64)
    heads = [TRAINED, ("词元/秒", "tokens/s"), ("峰值内存 MiB", "peak MiB")]
    rows = [
        [labels[language], *(f"{training[name][key]:,.0f}" for key in ("tokens_per_second", "peak_mib"))]
        for name, labels in CONTENDERS.items()
        if "peak_mib" in training.get(name, {})
    ]
    sizes = (("一次一题", "one by one"), (f"一次 {size} 题", f"{size} at a time"))
    answered = [
        [labels[language], *(f"{1000 * answering[f'{name}_batch_{count}']:.1f}" for count in (1, size))]
        for name, labels in ANSWERERS.items()
        if f"{name}_batch_1" in answering
    ]
    lines = [markdown([head[language] for head in heads], rows), ""]
    lines.append(markdown([head[language] for head in (ANSWERED, *sizes)], answered))
    return "\n".join([*lines, *reach(folder, language)])


def reach(folder: Path, language: int) -> list[str]:
    """Sentences about the server under load and llama.cpp, where they were tried."""
    lines = []
    if (path := folder / "benchmark_server.json").is_file():
        found = read_json(path)
        memory = [mib for _, mib in found["memory_mib"]]
        found["changed"] = len(found["changed"])
        told = SERVED[language].format(**found, **found["wait_seconds"], first=memory[0], last=memory[-1])
        lines += ["", told]
    if (path := folder / "llama_cpp.json").is_file():
        found = read_json(path)
        equal = ", ".join(f"{name} {form['equal']}" for name, form in found["formats"].items())
        lines += ["", COMPARED[language].format(**found, equal=equal)]
    return lines


def fill(text: str, name: str, content: str) -> str:
    """Put a table between its two markers."""
    filled, count = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda m: f"{m[1]}{content}\n{m[2]}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise WorkbookError(f"文件里应恰好有一对 <!-- {name} --> 标记。请恢复它们。")
    return filled


TABLES = {"summary": summary, "results": table, "ablation": ablation, "seeds": seeds, "speed": speed}
FULL = ("results", "ablation", "seeds", "speed")
FILES = (
    ("README.md", 0, ("summary",)),
    ("README_en.md", 1, ("summary",)),
    ("report/RESULTS.md", 0, FULL),
    ("report/RESULTS_en.md", 1, FULL),
)


def main() -> int:
    """Update all files."""
    for name, language, marks in FILES:
        path = PROJECT / name
        text = path.read_text(encoding="utf-8")
        for mark in marks:
            text = fill(text, mark, TABLES[mark](PROJECT, language))
        write_text(path, text)
    return 0


if __name__ == "__main__":
    exit_with(main)
