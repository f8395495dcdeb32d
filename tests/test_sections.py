"""The team's own words go into the report as written, and examples that nobody has replaced are noticed."""

from dataclasses import replace
from io import BytesIO

import pytest
import typst
from conftest import PROJECT
from pypdf import PdfReader

from minimind_core.config import STOCK_LORA, LoraConfig, ModelConfig
from minimind_core.conversations.mixing import write_dataset
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.metrics import share_of
from minimind_core.evaluation.suites import SUITES, suite_labels
from minimind_core.reporting.document import check_names
from minimind_core.reporting.drawings import architecture_figure, fact_figure
from minimind_core.reporting.fact_way import follow_fact
from minimind_core.reporting.figures import scores_figure
from minimind_core.reporting.sections import SECTIONS, read_section, runs, section_file, unwritten
from minimind_core.training.runs import prepare_run

TEXT = """<!-- 示例 -->

## 小标题

第一段，**重点**和 `代码`，
换行仍是同一段。

- 甲
- *乙*
"""


def test_blocks_keep_order_kind_and_style(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(TEXT, encoding="utf-8")
    blocks = read_section(path)
    assert [block["kind"] for block in blocks] == ["h", "p", "li", "li"]
    assert ["重点", "strong"] in blocks[1]["runs"] and ["代码", "code"] in blocks[1]["runs"]
    assert blocks[3]["runs"] == [["乙", "emph"]]
    assert read_section(tmp_path / "missing.md") == [] and runs([]) == []


UNSET = """一段 #set text(red) 和 $x_1$，<不是标签>
续行 😀 和 𠮷

| 组 | 对 |
|---|---|
| 甲 | 1 |

![图](a.png)

> 引用

<b>粗</b> 脚注[^1]

```
code
```
"""


def test_what_the_report_cannot_set_is_refused_at_once_with_its_lines(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(UNSET, encoding="utf-8")
    with pytest.raises(WorkbookError) as caught:
        read_section(path)
    said = [line.removeprefix(f"{path}:") for line in str(caught.value).split("\n")]
    expected = {"2": "😀 𠮷", "4": "表格", "8": "图片", "12": "网页标签", "14": "代码块"}
    for number, what in expected.items():
        assert any(line.startswith(f"{number}:") and what in line for line in said), (number, said)
    assert {line.split(":")[0] for line in said} == set(expected) and any("脚注" in line for line in said)


def test_very_long_words_may_be_broken():
    (rule,) = [
        line
        for line in (PROJECT / "report" / "report.typ").read_text(encoding="utf-8").split("\n")
        if line.startswith("#show regex")
    ]
    page = "#set page(width: 10cm, height: auto, margin: 0cm)\n"
    words = "#raw({0})#strong({0})".format(f'"https://example.org/{"a" * 200}"')

    def height(source):
        pdf = typst.compile(source.encode(), ignore_system_fonts=True)
        return float(PdfReader(BytesIO(pdf)).pages[0].mediabox.height)

    assert height(page + rule + "\n" + words) > 1.4 * height(page + words)


def test_a_name_that_the_cover_cannot_show_is_refused(workbook):
    with pytest.raises(WorkbookError, match="members 里的 𠮷"):
        check_names(replace(workbook, members=("壬𠮷", "庚𬭎")))
    check_names(replace(workbook, members=("O'Neil_#2", "$丁$ @戊", "庚𬭎", "辛䶮", "*癸* [x]<y>")))


def test_shipped_sections_can_be_read_and_are_known_as_examples(workbook):
    assert all(read_section(section_file(workbook, name)) for name in SECTIONS)
    assert len(unwritten(workbook)) == len(SECTIONS)
    section_file(workbook, "data").write_text("我们自己写的。", encoding="utf-8")
    assert len(unwritten(workbook)) == len(SECTIONS) - 1


def test_figures_and_tables_name_no_topic_of_their_own():
    column = dict.fromkeys(SUITES, share_of([True, False]))
    labels = [
        text.get_text().replace("\n", "")
        for text in scores_figure({"main": column, "main + 核对": column}).axes[0].get_xticklabels()
    ]
    assert labels == list(suite_labels().values()) and not any("音乐" in label for label in labels)


def test_a_fact_is_followed_from_its_row_to_the_answer(workbook):
    write_dataset(workbook)
    list(prepare_run(workbook, "main", "smoke").train())
    way = follow_fact(workbook, "main")
    learnt = [text for text, learn in way.tokens if learn]
    assert "".join(text for text in learnt if text not in ("终", "↵")) == way.answer
    assert len(way.before) == len(way.after) == len(learnt) and sum(way.after) < sum(way.before)
    assert len(way.sizes) == 7 * 2 and min(way.sizes.values()) > 0
    texts = [text.get_text() for axes in fact_figure(way).axes for text in axes.texts]
    assert f"问：{way.question}" in texts and f"训练之后：{way.said_after}"[:20] in " ".join(texts)


def test_the_network_is_drawn_with_a_star_where_an_adapter_is():
    def words(lora):
        return " ".join(text.get_text() for text in architecture_figure(ModelConfig(), lora).axes[0].texts)

    assert "q*、k、v、o*" in words(STOCK_LORA) and "gate、up、down" in words(STOCK_LORA)
    assert "down*" in words(LoraConfig()) and "× 8 层" in words(LoraConfig())
