import errno
import os

import pytest
from conftest import PROJECT, shipped_only

from minimind_core.config import PROFILES, LoraConfig, Mix, ModelConfig, TrainConfig, load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing, write_jsonl, write_text


@pytest.mark.parametrize(("old", "new", "problem"), [
    ('name = "小音"', "name = 3", "name 应是非空的文字"),
    ('name = "小音"', 'nmae = "小音"', "不认识 nmae"),
    ('name = "小音"', "", "没有 name"),
    ("[mix]", "[mixx]", r"不认识的小节 \[mixx\]"),
    ('profile = "smoke"', 'profile = "fast"', "profile 应是"),
    ("fact = 1", "fact = -1", "不能是负数"),
    ('subjects = ["周杰伦", "王力宏", "林俊杰", "陶喆"]', "subjects = []", "subjects 应是非空的列表"),
    ('course = "人工智能导论"', "course = 人工智能导论", "格式不对"),
    ("identity = 1", "identity = true", "identity 应是整数"),
])  # fmt: skip
def test_a_wrong_setting_is_named_with_file_line_and_remedy(project, old, new, problem):
    path = project / "workbook.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(WorkbookError, match=problem) as caught:
        load_workbook(project)
    assert str(path) in str(caught.value)


def test_the_line_of_a_wrong_setting_is_right(project):
    path = project / "workbook.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line.startswith("seed"))
    lines[number - 1] = 'seed = "x"'
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(WorkbookError, match=f"workbook.toml:{number}: "):
        load_workbook(project)


def test_outside_a_project_the_remedy_is_said(tmp_path):
    with pytest.raises(WorkbookError, match="请在项目目录里运行"):
        load_workbook(tmp_path)


def test_contradictions_raise():
    for make in (
        lambda: TrainConfig(warmup=0.6, decay=0.6),
        lambda: LoraConfig(rank=0),
        lambda: Mix(0, 0, 0, 0),
        lambda: ModelConfig(n_kv_heads=3),
    ):
        with pytest.raises(ValueError):
            make()


@shipped_only
def test_the_shipped_workbook_is_valid_and_names_no_invented_people():
    workbook = load_workbook(PROJECT)
    assert workbook.profile in PROFILES and all(name.startswith("成员") for name in workbook.members)


def test_nothing_is_half_written(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [1])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkbookError, match="磁盘空间不足"):
        write_jsonl(path, [2])
    assert path.read_text() == "1\n" and os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_workbook_of_an_older_version_still_loads(project):
    path = project / "workbook.toml"
    text = path.read_text(encoding="utf-8")
    start, end = text.index("[mix]"), text.index("[training]")
    old = "[mix]\nmusic = 1\nidentity = 3\nrefusal = 2\ngeneral = 2\nwordings = 18\nanswers = 1\n\n"
    path.write_text(text[:start] + old + text[end:], encoding="utf-8")
    assert load_workbook(project).mix == Mix(fact=1, identity=3, unknown=2, everyday=2)
