import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import PROJECT

from minimind_core.conversations.mixing import write_dataset
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.lora import load_adapter
from minimind_core.training.runs import load_run

WORDS = torch.tensor([[5, 9, 200, 31]])


@pytest.fixture
def course(workbook):
    """A project with the course's scripts, as they lie in the repository."""
    write_dataset(workbook)
    shutil.copytree(PROJECT / "scripts", workbook.root / "scripts")
    return workbook


def run(course, script, *arguments, expect=0, folder="scripts"):
    command = [sys.executable, script, *arguments]
    result = subprocess.run(command, cwd=course.root / folder, capture_output=True, text=True, check=False)
    assert result.returncode == expect, result.stderr
    return result.stdout + result.stderr


def test_the_course_commands_work_as_written(course):
    data = ["--data_path", "../dataset/train.jsonl", "--lora_name", "lora_music", "--epochs", "2"]
    said = run(
        course,
        "train_lora.py",
        *data,
        "--learning_rate",
        "1e-3",
        "--batch_size",
        "16",
        "--save_interval",
        "2",
        "--out_dir",
        "../out",
    )
    path = course.root / "out" / "lora" / "lora_music_32.pth"
    assert path.is_file() and str(path.name) in said
    tensors = torch.load(path, weights_only=True)
    assert tensors["model.layers.0.self_attn.q_proj.lora.A.weight"].shape == (4, 32)
    ours, theirs = load_run(course, "lora_music", "cpu")[0], load_adapter(path, load_base(course.base)[0])
    assert (ours(WORDS).float() - theirs(WORDS)).abs().max() < 0.2  # ours may be lowered to bfloat16
    answered = run(course, "eval_model.py", "--lora_name", "lora_music", "--model_mode", "1")
    assert all(f"问：{question}" in answered for question in course.show_questions) and answered.count(
        "答："
    ) > len(course.show_questions)


@pytest.mark.slow
def test_a_mode_that_does_not_fit_is_refused_with_the_reason(course):
    run(
        course,
        "train_lora.py",
        "--data_path",
        "../dataset/identity.jsonl",
        "--lora_name",
        "任何名字",
        "--preset",
        "stock",
    )
    assert "不存在" in run(course, "eval_model.py", "--lora_name", "任何名字", "--model_mode", "2", expect=1)
    other, _ = load_base(course.base)
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    torch.save(other.state_dict(), course.root / "out" / "rlhf_512.pth")
    shutil.copy(course.base / "tokenizer.json", course.root / "out" / "tokenizer.json")
    refused = run(course, "eval_model.py", "--lora_name", "任何名字", "--model_mode", "2", expect=1)
    assert "只能配训练它的基座" in refused
    assert "答：" in run(course, "eval_model.py", "--model_mode", "1")


def test_a_name_that_was_never_trained_is_no_key_error(course):
    said = run(course, "eval_model.py", "--lora_name", "never", expect=1)
    assert "never" in said and "现有：None" in said and "KeyError" not in said


@pytest.mark.slow
def test_the_commands_work_from_the_projects_own_folder_and_find_runs(course):
    foreign = course.root / "rows.json"  # another program's format
    foreign.write_text(
        json.dumps([{"question": f"第{n}问", "answer": "答"} for n in range(9)]), encoding="utf-8"
    )
    data = ["--data_path", "rows.json", "--lora_name", "other", "--epochs", "1"]
    said = run(course, "scripts/train_lora.py", *data, folder=".")
    assert "question/answer" in said and "没有丢掉内容" in said
    path = course.root / "out" / "lora" / "other_32.pth"
    assert path.is_file() and not (course.root.parent / "out").exists()
    path.unlink()  # the run of the same name is there
    assert "答：" in run(course, "scripts/eval_model.py", "--lora_name", "other", folder=".")
    assert "现有：other、None" in run(course, "eval_model.py", "--lora_name", "never", expect=1)
