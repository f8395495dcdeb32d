"""Files that people write or damage: one error with the place and what to do, wherever they are read."""

import json
import re
import shutil

import pytest
from conftest import PROJECT

from minimind_core.cli import main
from minimind_core.errors import WorkbookError
from minimind_core.files import read_json, read_jsonl, read_text
from minimind_core.modeling.checkpoint import load_base, read_config


def test_text_is_read_with_a_byte_order_mark_and_a_missing_file_is_empty(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeff你好".encode())
    assert read_text(tmp_path / "a.txt") == "你好" and read_text(tmp_path / "b.txt") == ""
    assert list(read_jsonl(tmp_path / "b.jsonl")) == []


@pytest.mark.parametrize(("raw", "said"), [
    (b"{}\n\n{", "x.jsonl:3"), ("{}\n\"好\"".encode("gbk"), "x.jsonl:2: 不是 UTF-8"),
])  # fmt: skip
def test_a_bad_line_is_named(tmp_path, raw, said):
    path = tmp_path / "x.jsonl"
    path.write_bytes(raw)
    with pytest.raises(WorkbookError, match=said):
        list(read_jsonl(path))


@pytest.mark.parametrize("raw", [None, b"{\n1", b'"\xff'])
def test_json_that_is_missing_or_damaged_is_named_with_the_remedy(tmp_path, raw):
    path = tmp_path / "x.json"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(WorkbookError, match=r"x\.json.*(重做|UTF-8)"):
        read_json(path, "请重做。")


@pytest.mark.parametrize(("name", "text", "said"), [
    ("questions/test.jsonl", '{"suite": "facts"}', "test.jsonl:1: 应含 suite 和 turns"),
    ("questions/test.jsonl", "[1", "test.jsonl:1"),
    ("texts/everyday.jsonl", '["早"]', "everyday.jsonl:1: 每行应是成对的文字"),
    ("texts/unknown_people.jsonl", "{", "unknown_people.jsonl:1"),
    ("texts/wordings.toml", 'a = “x”', "wordings.toml:1: 用了中文引号"),
])  # fmt: skip
def test_a_teams_own_texts_are_checked_when_the_data_are_built(project, capsys, name, text, said):
    workbook = project / "workbook.toml"
    lines = [line for line in workbook.read_text(encoding="utf-8").split("\n") if "texts =" not in line]
    workbook.write_text(
        "\n".join(lines).replace("[data]", '[data]\ntexts = "dataset/texts"'), encoding="utf-8"
    )
    path = project / "dataset" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    assert main(["--root", str(project), "build-dataset"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "change", "said"), [
    ("config.json", lambda text: text[:-9], "不是合法的 JSON"),
    ("config.json", lambda text: re.sub(r'("num_attention_heads": )\d+', r"\g<1>7", text), "结构的数字"),
    ("tokenizer.json", lambda text: text[:99], "分词器文件已损坏"),
])  # fmt: skip
def test_a_damaged_base_is_named(workbook, name, change, said):
    path = workbook.base / name
    before = path.read_text(encoding="utf-8")
    path.write_text(change(before), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != before
    with pytest.raises(WorkbookError, match=said):
        load_base(workbook.base)


def test_a_config_of_transformers_5_is_read(tmp_path):
    values = json.loads((PROJECT / "weights" / "base" / "config.json").read_text(encoding="utf-8"))
    expected = read_config(PROJECT / "weights" / "base")
    values["rope_parameters"] = {"rope_theta": values.pop("rope_theta"), "rope_type": "default"}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert read_config(tmp_path) == expected


def test_a_run_without_its_record_is_named(project, capsys):
    folder = project / "runs" / "main"
    folder.mkdir(parents=True)
    shutil.copy(project / "weights" / "base" / "model.safetensors", folder / "adapter.safetensors")
    assert main(["--root", str(project), "chat"]) == 2
    assert "run.json: 找不到这个文件" in capsys.readouterr().err
