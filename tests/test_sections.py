"""The team's own words go into the report as written, and examples that nobody has replaced are noticed."""

import pytest

from minimind_core.errors import WorkbookError
from minimind_core.evaluation.metrics import share_of
from minimind_core.evaluation.suites import SUITES, suite_labels
from minimind_core.reporting.figures import scores_figure
from minimind_core.reporting.sections import SECTIONS, read_section, runs, section_file, unwritten

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


def test_what_the_report_cannot_set_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("一段\n\n```\ncode\n```\n", encoding="utf-8")
    with pytest.raises(WorkbookError, match="a.md:3"):
        read_section(path)


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
