"""Write the tables of README.md and README_en.md from report/results."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from minimind_core.config import load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.experiments import in_group
from minimind_core.evaluation.scoring import load_results, not_beyond_lookup, score_columns
from minimind_core.files import write_text

PROJECT = Path(__file__).resolve().parents[1]
ROWS = {
    "identity": ("身份，没见过的问法", "identity, unseen wordings"),
    "music_seen": ("音乐，学过的问法", "music, seen wording"),
    "music_held_out": ("音乐，没见过的问法", "music, held-out wordings"),
    "music_generic": ("音乐，没见过的通用问法", "music, unseen wording for any attribute"),
    "music_family": ("音乐，没教过的问法族", "music, held-out wording family"),
    "music_reverse": ("音乐，由值反问对象", "music, from value to subject"),
    "music_follow": ("音乐，追问（两轮）", "music, follow-up question"),
    "refusal": ("拒答没学过的内容", "refusal of unknown things"),
    "over_refusal": ("过度拒答：没见过的问法、通用问法（越低越好）", "over-refusal, held-out and any-attribute wordings (lower is better)"),
    "over_refusal_all": ("过度拒答：一切问法（越低越好）", "over-refusal, all wordings (lower is better)"),
    "ended": ("自然结束", "answer ended by itself"),
    "repetition": ("复读（越低越好）", "repetition (lower is better)"),
}
PARTS = {
    "identity/provoking": ("身份中的挑衅", "identity, provoking"),
    "identity/english": ("身份中的英文", "identity, in English"),
    "refusal/artist": ("拒答中的陌生人名", "refusal, unknown people"),
    "refusal/attribute": ("拒答中的陌生属性", "refusal, unknown attributes"),
    "refusal/off_topic": ("拒答中的别的话题", "refusal, other topics"),
}
NOTES = (
    "种子 {seed}，{trainable_parameters:,} 个可训练参数，训练 {minutes:.1f} 分钟（{cpu_count} 核 CPU）；括号里是题数和 95% Wilson 区间。",
    "Seed {seed}, {trainable_parameters:,} trainable parameters, {minutes:.1f} minutes of training on {cpu_count} CPU cores; "
    "counts and 95 % Wilson intervals in brackets.",
)

# The ablation's steps, in the order of their names; in Chinese each says what it is about.
STEPS = {
    "a0_stock": "stock: unshuffled, q and o of rank 8, 1e-4, one wording, identity once, end token lost, sampled",
    "a1_shuffle": "shuffled",
    "a2_end": "the end token is learned",
    "a3_rate": "learning rate 3e-3",
    "a4_layers": "seven linear layers, rank 16",
    "a5_wordings": "eighteen wordings",
    "a6_parts": "refusals, rehearsal",
    "a7_decoding": "greedy, repetition penalty",
    "a8_floor": "the guard",
    "a9_default": "LoRA+, two passes, identity and rehearsal twice, roundabout wordings: the default",
}
FORGOTTEN = ("日常话的损失，比基座", "loss on everyday talk, against the base")
DECLINED = ("日常话，推说不知道", "everyday prompts declined")
TRAINED = ("训练（有用词元）", "training (useful tokens)")
CONTENDERS = {
    "stock": ("原版设置（float32、补到 512）", "stock settings (float32, padded to 512)"),
    "trl_packed": ("TRL + PEFT，装箱，q、o 秩 8", "TRL + PEFT, packed, q and o of rank 8"),
    "ours_q_o_rank8": ("本项目，q、o 秩 8", "this workbook, q and o of rank 8"),
    "ours_q_o_rank8_trl_steps": ("本项目，q、o 秩 8，每步与 TRL 一样大", "this workbook, q and o of rank 8, steps as large as TRL's"),
    "ours_default": ("本项目，默认（七种线性层，秩 16）", "this workbook, default (seven linear layers of rank 16)"),
}
ANSWERED = ("回答一题的毫秒数", "milliseconds an answer")
ANSWERERS = {
    "transformers": ("transformers 的 generate", "transformers' generate"),
    "ours_without_draft": ("本项目，不打草稿", "this workbook without a draft"),
    "ours": ("本项目", "this workbook"),
}
SHOWN = ("identity", "music_held_out", "music_family", "refusal", "ended")


def table(root: Path, language: int) -> str:
    """The Markdown table; language 0 is Chinese, 1 English."""
    results = load_results(load_workbook(root))
    columns = score_columns(results, ("base", "retrieval", "main"))
    heads = [name if language == 0 else name.replace("，不把关", ", unguarded") for name in columns]
    lines = [f"| {('测试', 'test')[language]} | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for key, labels in ROWS.items():
        scores = [column[key] for column in columns.values()]
        cells = [f"{s['share']:.1%} ({s['right']}/{s['n']}, {s['low']:.1%}–{s['high']:.1%})" for s in scores]
        lines.append(f"| {labels[language]} | " + " | ".join(cells) + " |")
    run = results["main"]["run"]
    notes = families(results["main"], language), clustered(results["main"], language), beaten(results, language)
    values = {"minutes": run["train_seconds"] / 60, **{key: run[key] for key in ("seed", "trainable_parameters", "cpu_count")}}
    return "\n".join([*lines, "", NOTES[language].format(**values) + "".join(notes)])


def families(result: dict, language: int) -> str:
    """The two untaught ways of asking apart."""
    counts = []
    for blank in (True, False):
        rows = [a for a in result["answers"] if a["suite"] == "music_family" and ("____" in a["question"]) == blank]
        counts.append(f"{sum(a['right'] for a in rows)}/{len(rows)}")
    text = (
        " 没教过的问法族里，填空 {}，转述 {}（训练里没有留空待填的句子，但有要接完的上半句）。",
        " Of the held-out wording family, filling a blank {}, passing on {} (no blanks are taught, but sentences to be completed are).",
    )
    return text[language].format(*counts)


def clustered(result: dict, language: int) -> str:
    """The follow-up question that fails most, where it makes up most of the failures: one wording is one throw of the dice."""
    wrong = Counter(a["question"] for a in result["answers"] if a["suite"] == "music_follow" and not a["right"])
    question, most = wrong.most_common(1)[0] if wrong else ("", 0)
    text = (" 答错的追问里，{} / {} 是同一句“{}”。", " Of the follow-up questions that fail, {} of {} are the same one, {}.")
    return text[language].format(most, wrong.total(), question) if most >= 10 and 2 * most > wrong.total() else ""


def beaten(results: dict[str, dict], language: int) -> str:
    """The tests of untaught wordings in which the fine-tuned model does no better than look-up: a README has to say so."""
    lost = [ROWS[suite][language] for suite in not_beyond_lookup(results, "main")]
    text = ("这次训练在这些项上没有胜过查表：{}。", " In these tests this training does no better than look-up: {}.")
    return text[language].format(("；", "; ")[language].join(lost)) if lost else ""


def ablation(root: Path, language: int) -> str:
    """The way from stock settings to the default, one change a row."""
    results = in_group(load_workbook(root), "ablation")
    heads = [("改了什么", "change")[language], *(ROWS[key][language] for key in SHOWN), ("训练分钟", "minutes of training")[language]]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, english in STEPS.items():
        if name in results:
            result = results[name]
            scores = [result["scores"][key] for key in SHOWN]
            cells = [f"{score['right']}/{score['n']}" for score in scores] + [f"{result['run']['train_seconds'] / 60:.1f}"]
            lines.append(f"| {' | '.join([(result['about'], english)[language], *cells])} |")
    return "\n".join(lines)


def seeds(root: Path, language: int) -> str:
    """The default recipe from several seeds, and their mean."""
    workbook = load_workbook(root)
    runs = load_results(workbook)
    results = {r["run"]["seed"]: r for r in (runs["main"], *in_group(workbook, "seeds").values())}
    columns = [(f"种子 {seed}", f"seed {seed}")[language] for seed in results] + [("平均", "mean")[language]]
    lines = [f"| {('测试', 'test')[language]} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for key, labels in {**ROWS, **PARTS}.items():
        scores = [(result["scores"] | result["details"])[key] for result in results.values()]
        cells = [f"{s['right']}/{s['n']}" for s in scores] + [f"{sum(s['share'] for s in scores) / len(scores):.1%}"]
        lines.append(f"| {' | '.join([labels[language], *cells])} |")
    forgotten = [result["everyday"]["loss"] / runs["base"]["everyday"]["loss"] - 1 for result in results.values()]
    cells = [f"{value:+.1%}" for value in (*forgotten, sum(forgotten) / len(forgotten))]
    declined = [result["everyday"]["declined"] for result in results.values()]
    told = [f"{s['right']}/{s['n']}" for s in declined] + [f"{sum(s['share'] for s in declined) / len(declined):.1%}"]
    return "\n".join([*lines, *(f"| {' | '.join([label[language], *row])} |" for label, row in ((FORGOTTEN, cells), (DECLINED, told)))])


def speed(root: Path, language: int) -> str:
    """The rivals of both benchmarks, each of which ran them on one machine, one after the other; whoever could not run is left out."""
    folder = load_workbook(root).results
    training, answering = (json.loads((folder / f"benchmark_{name}.json").read_text(encoding="utf-8")) for name in ("training", "generation"))
    heads = [TRAINED, ("词元/秒", "tokens/s"), ("峰值内存 MiB", "peak MiB")]
    lines = [f"| {' | '.join(head[language] for head in heads)} |", "|---|---|---|"]
    for name in filter(lambda name: "peak_mib" in training.get(name, {}), CONTENDERS):
        labels = CONTENDERS[name]
        lines.append(f"| {labels[language]} | {training[name]['tokens_per_second']:,.0f} | {training[name]['peak_mib']:,.0f} |")
    lines += ["", f"| {ANSWERED[language]} | {('一次一题', 'one by one')[language]} | {('一次 64 题', '64 at a time')[language]} |", "|---|---|---|"]
    for name in filter(lambda name: f"{name}_batch_1" in answering, ANSWERERS):
        labels = ANSWERERS[name]
        cells = [f"{1000 * answering[f'{name}_batch_{size}']:.1f}" for size in (1, 64)]
        lines.append(f"| {' | '.join([labels[language], *cells])} |")
    return "\n".join(lines)


def fill(text: str, name: str, content: str) -> str:
    """Put a table between its two markers."""
    filled, count = re.subn(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise WorkbookError(f"README 里应恰好有一对 <!-- {name} --> 标记。请恢复它们。")
    return filled


def main() -> int:
    """Update both files."""
    try:
        for language, name in enumerate(("README.md", "README_en.md")):
            path = PROJECT / name
            text = fill(path.read_text(encoding="utf-8"), "results", table(PROJECT, language))
            for mark, content in (("ablation", ablation), ("seeds", seeds), ("speed", speed)):
                text = fill(text, mark, content(PROJECT, language))
            write_text(path, text)
    except WorkbookError as error:
        print(f"错误：{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
