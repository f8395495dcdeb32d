import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile

import pytest
from conftest import EXAMPLES, FACTS, MUSIC, PROJECT, example_workbook, random_model

from minimind_core.cli import main
from minimind_core.cli.show import free_port
from minimind_core.config import load_workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation import ledger
from minimind_core.files import write_json
from minimind_core.inference.questions import read_questions
from minimind_core.modeling.checkpoint import save_base
from minimind_core.modeling.tokenizer import load_tokenizer
from minimind_core.reporting.browser import BROWSER_HELP, browser_path
from minimind_core.training.run_files import file_sha256


def run(project, *arguments: str) -> int:
    return main(["--root", str(project), *map(str, arguments)])


@pytest.fixture
def trained(project):
    """A project with data and a trained run."""
    assert run(project, "build-dataset") == 0
    assert run(project, "train", "--profile", "smoke") == 0
    return project


@pytest.mark.slow
def test_the_zip_trains_and_answers_where_it_is_unpacked(trained, tmp_path_factory):
    assert (
        run(trained, "evaluate") == 0
        and run(trained, "report") == 0
        and run(trained, "submit", "--draft") == 0
    )
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(trained / "旋律小队_大作业.zip") as archive:
        archive.extractall(folder)
    code = folder / "minimind"
    # a small one
    save_base(
        random_model(),
        load_tokenizer(code / "weights" / "base" / "tokenizer.json"),
        code / "weights" / "base",
    )
    environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONUTF8": "1"}
    assert not (code / "dataset" / "train.jsonl").exists()  # the data stand in the zip once
    for arguments in (
        ["build-dataset"],
        ["train", "--run", "again", "--profile", "smoke"],
        ["ask", "--run", "again", "--questions", "q.txt"],
    ):
        (code / "q.txt").write_text("你是谁？", encoding="utf-8")
        command = [sys.executable, "-m", "minimind_core.cli", *arguments]
        result = subprocess.run(
            command, cwd=code, env=environment, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["question"] == "你是谁？"
    assert len((code / "runs" / "again" / "metrics.csv").read_text().splitlines()) > 1
    where = subprocess.run(
        [sys.executable, "-c", "import minimind_core; print(minimind_core.__file__)"],
        cwd=code,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(code))  # the unpacked code ran, not the installed one


def test_every_verb_has_help(capsys):
    for verb in (
        "collect",
        "build-dataset",
        "doctor",
        "train",
        "evaluate",
        "ask",
        "chat",
        "report",
        "submit",
    ):
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0 and "--help" in capsys.readouterr().out


def test_a_reader_who_leaves_early_is_no_error(project):
    command = [sys.executable, "-m", "minimind_core.cli", "--root", str(project), "experiments"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1


def test_train_writes_a_whole_run_folder_twice_the_same(trained):
    folder = trained / "runs" / "main"
    first = (folder / "adapter.safetensors").read_bytes()
    settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert settings["status"] == "finished" and settings["seed"] == 42 and len(settings["data_sha256"]) == 64
    metrics = (folder / "metrics.csv").read_text().splitlines()
    assert len(metrics) == settings["steps"] + 1 and not (folder / "checkpoint.pt").exists()
    assert run(trained, "train", "--profile", "smoke") == 0
    assert (folder / "adapter.safetensors").read_bytes() == first


def test_from_facts_to_zip(trained, capsys, tmp_path_factory):
    questions = trained / "questions.txt"
    questions.write_text(
        '你是谁？\n{"question": "《范特西》是谁的专辑？"}\n{"conversations": [{"role": "user", "content": "hi"}]}\n',
        encoding="utf-8",
    )
    assert run(trained, "ask", "--questions", questions, "--out", trained / "answers.jsonl") == 0
    rows = [json.loads(line) for line in (trained / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["question"] for row in rows] == ["你是谁？", "《范特西》是谁的专辑？", "hi"]
    assert all(
        set(row) == {"question", "answer", "new_tokens", "ended"} and row["new_tokens"] <= 128 for row in rows
    )
    for name in ("main", "base"):
        assert run(trained, "evaluate", "--run", name, "--json", trained / f"{name}.json") == 0
    scores = json.loads((trained / "main.json").read_text(encoding="utf-8"))["scores"]
    assert set(scores) >= {"identity", "seen", "drawn", "unknown", "over_refusal", "ended", "repetition"}
    assert (
        all(0 <= s["low"] <= s["share"] <= s["high"] <= 1 for s in scores.values())
        and scores["drawn"]["n"] > 0
    )
    assert run(trained, "report") == 0 and run(trained, "submit", "--draft") == 0
    said = capsys.readouterr().out
    assert "没有 运行示例.mp4" in said and "✗ 运行示例.mp4" in said and "✓ minimind/" in said
    with zipfile.ZipFile(trained / "旋律小队_大作业.zip") as archive:
        names = set(archive.namelist())
        assert {
            "大作业报告.pdf",
            "README.txt",
            "dataset/facts.csv",
            "minimind/go.py",
            "minimind/runs/main/adapter.safetensors",
        } <= names
        assert archive.read("大作业报告.pdf").startswith(b"%PDF") and archive.testzip() is None
        assert not [n for n in names if "__pycache__" in n or ".tmp" in n]


@pytest.mark.slow
def test_name_and_team_change_everything_that_is_handed_in(project):
    from pypdf import PdfReader

    path = project / "workbook.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("小音", "阿律").replace("旋律小队", "银杏组"),
        encoding="utf-8",
    )
    for verb in (["build-dataset"], ["train"], ["evaluate"], ["report"], ["submit", "--draft"]):
        assert run(project, *verb) == 0
    with zipfile.ZipFile(project / "银杏组_大作业.zip") as archive:
        readme = archive.read("README.txt").decode()
        assert "阿律" in readme and "银杏组" in readme
        assert "阿律" in archive.read("dataset/identity.jsonl").decode()
    pages = [page.extract_text() for page in PdfReader(project / "report" / "大作业报告.pdf").pages]
    cover = re.sub(r"\s", "", pages[0])
    assert "银杏组" in cover and "阿律" in cover and "小音" not in "".join(pages)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_another_topic_is_handed_in_without_a_word_of_music(tmp_path, example, tokenizer):
    from pypdf import PdfReader

    save_base(random_model(), tokenizer, tmp_path / "weights" / "base")
    workbook = example_workbook(tmp_path, example)
    text = (tmp_path / "workbook.toml").read_text(encoding="utf-8").replace("../../weights", "weights")
    (tmp_path / "workbook.toml").write_text(text, encoding="utf-8")
    for name in ("questions", "music"):  # what a team leaves where it is
        shutil.copytree(PROJECT / "dataset" / name, tmp_path / "dataset" / name)
    for name in ("report.typ", "sections", "results"):
        copy = shutil.copytree if (PROJECT / "report" / name).is_dir() else shutil.copy
        (tmp_path / "report").mkdir(exist_ok=True)
        copy(PROJECT / "report" / name, tmp_path / "report" / name)
    for verb in (["build-dataset"], ["train", "--profile", "smoke"], ["evaluate", "--profile", "smoke"]):
        assert run(tmp_path, *verb) == 0
    assert run(tmp_path, "report") == 0 and run(tmp_path, "submit", "--draft") == 0
    pages = "".join(page.extract_text() for page in PdfReader(tmp_path / "report" / "大作业报告.pdf").pages)
    assert [word for word in MUSIC if word in re.sub(r"\s", "", pages)] == []
    with zipfile.ZipFile(tmp_path / f"{workbook.persona.team}_大作业.zip") as archive:
        names = archive.namelist()
        assert "minimind/report/results/run_main.json" in names
        assert "minimind/report/results/run_lookup.json" not in names  # the shipped example's
        made = [n for n in names if n.startswith(("dataset/", "README.txt")) and "/music/" not in n]
        said = {name: archive.read(name).decode() for name in made if "questions" not in name}
    assert {name: word for name, text in said.items() for word in MUSIC if word in text} == {}


@pytest.mark.parametrize(("arguments", "problem"), [
    (["train"], "先运行 minimind build-dataset"),
    (["evaluate", "--run", "none"], "没有名为“none”"),
    (["ask", "--run", "base", "--questions", "nowhere.txt"], "找不到问题文件"),
    (["train", "--run", "a b"], "不能含空格"),
    (["submit", "--draft"], "不能打包"),
    (["doctor", "nowhere.jsonl"], "找不到数据文件"),
])  # fmt: skip
def test_problems_are_one_line_with_a_remedy(project, capsys, arguments, problem):
    if arguments[0] == "evaluate":
        run(project, "build-dataset")
    assert run(project, *arguments) == 2
    error = capsys.readouterr().err
    assert problem in error and "Traceback" not in error


def test_a_broken_line_stops_training_before_anything_is_written(trained, capsys):
    before = (trained / "runs" / "main" / "adapter.safetensors").read_bytes()
    path = trained / "dataset" / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")
    assert run(trained, "train") == 2
    assert re.search(r"train\.jsonl:\d+: .*JSON.*doctor", capsys.readouterr().err)
    assert (trained / "runs" / "main" / "adapter.safetensors").read_bytes() == before


def test_a_broken_question_is_reported_by_line(project, capsys):
    path = project / "q.jsonl"
    path.write_text('你好\n{"x": 1}\n', encoding="utf-8")
    assert run(project, "ask", "--run", "base", "--questions", path) == 2
    assert f"{path}:2:" in capsys.readouterr().err


def test_doctor_exits_with_one_when_errors_remain(trained, capsys):
    assert (
        run(trained, "doctor", trained / "dataset" / "unknown.jsonl", trained / "dataset" / "identity.jsonl")
        == 0
    )
    bad = trained / "bad.jsonl"
    bad.write_text("{\n", encoding="utf-8")
    assert run(trained, "doctor", bad) == 1
    assert f"{bad}:1: 错误" in capsys.readouterr().out


def test_collect_compares_with_kdconv(project, capsys):
    path = project / "music.json"
    attribute = {"name": "陶喆", "attrname": "出生日期", "attrvalue": "1970年07月11日"}
    path.write_text(json.dumps([{"messages": [{"message": "x", "attrs": [attribute]}]}]), encoding="utf-8")
    assert run(project, "collect", "--kdconv", path) == 0
    assert "不同：陶喆 出生日期" in capsys.readouterr().out


def test_an_adapter_of_another_base_is_refused(trained, capsys, tokenizer):
    from conftest import random_model

    from minimind_core.modeling.checkpoint import save_base

    save_base(random_model(seed=5), tokenizer, trained / "weights" / "base")
    assert run(trained, "evaluate") == 2
    assert "另一个基座" in capsys.readouterr().err


def test_a_resume_with_other_data_is_refused(trained, capsys):
    from minimind_core.config import load_workbook
    from minimind_core.training.runs import prepare_run

    started = prepare_run(load_workbook(trained), "again").train()
    next(started)
    started.close()
    (trained / "dataset" / "facts.csv").write_text(FACTS.replace("2001年", "2002年"), encoding="utf-8")
    run(trained, "build-dataset")
    assert run(trained, "train", "--run", "again", "--resume") == 2
    assert "data_sha256 已改变" in capsys.readouterr().err


def test_a_killed_run_resumes_to_the_same_adapter_and_log(trained):
    """The process dies between two checkpoints: no cleaning up runs, and the log is ahead of the
    checkpoint.
    """
    from minimind_core.config import load_workbook
    from minimind_core.training import trainer
    from minimind_core.training.run_files import log_step, read_metrics
    from minimind_core.training.runs import prepare_run

    folder = trained / "runs" / "killed"
    killed = prepare_run(load_workbook(trained), "killed")
    steps = trainer.train(
        killed.model, killed.source, killed.profile.train, checkpoint=folder / "checkpoint.pt"
    )
    records = [next(steps), next(steps)]
    log_step(folder / "metrics.csv", records[0], [])
    steps.close()
    log_step(folder / "metrics.csv", records[1], None)
    (folder / "metrics.csv").open("a").write("3,3,9")
    (folder / "run.json").write_text(json.dumps({**killed.settings, "status": "running"}), encoding="utf-8")
    assert run(trained, "train", "--run", "killed", "--resume") == 0
    assert (folder / "adapter.safetensors").read_bytes() == (
        trained / "runs" / "main" / "adapter.safetensors"
    ).read_bytes()
    rows = [read_metrics(trained / "runs" / name / "metrics.csv") for name in ("killed", "main")]
    assert [[r["step"], r["loss"]] for r in rows[0]] == [[r["step"], r["loss"]] for r in rows[1]]


def test_resuming_nothing_and_the_name_base_are_refused(trained, capsys):
    before = (trained / "runs" / "main" / "adapter.safetensors").read_bytes()
    assert run(trained, "train", "--resume") == 2
    assert "没有中断的训练" in capsys.readouterr().err
    assert run(trained, "train", "--run", "base") == 2
    assert (trained / "runs" / "main" / "adapter.safetensors").read_bytes() == before


def test_a_checkpoint_of_the_last_step_still_becomes_an_adapter(trained):
    from minimind_core.config import load_workbook
    from minimind_core.training import trainer
    from minimind_core.training.runs import prepare_run

    folder = trained / "runs" / "late"
    late = prepare_run(load_workbook(trained), "late")
    list(trainer.train(late.model, late.source, late.profile.train, checkpoint=folder / "checkpoint.pt"))
    (folder / "run.json").write_text(json.dumps({**late.settings, "status": "running"}), encoding="utf-8")
    assert run(trained, "train", "--run", "late", "--resume") == 0
    assert (folder / "adapter.safetensors").read_bytes() == (
        trained / "runs" / "main" / "adapter.safetensors"
    ).read_bytes()
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] == "finished"


def test_files_in_another_encoding_are_named(project, capsys):
    path = project / "dataset" / "facts.csv"
    path.write_bytes(FACTS.encode("gb18030"))
    assert run(project, "build-dataset") == 2
    assert "CSV UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ['{"conversations": [{"role": "system", "content": "x"}]}', '{"conversations": []}']
)
def test_a_dialogue_without_a_question_is_refused(project, capsys, line):
    path = project / "q.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    assert run(project, "ask", "--run", "base", "--questions", path) == 2
    assert f"{path}:1:" in capsys.readouterr().err


@pytest.mark.slow
def test_what_may_not_be_handed_in_is_refused_with_the_reasons(trained, capsys):
    assert run(trained, "evaluate") == 0 and run(trained, "report") == 0
    assert run(trained, "submit") == 2 and "占位" in capsys.readouterr().err
    path = trained / "workbook.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("成员一", "张三").replace("成员二", "李四"), encoding="utf-8"
    )
    assert (
        run(trained, "report") == 0 and run(trained, "submit") == 2 and "示例文字" in capsys.readouterr().err
    )
    for section in (trained / "report" / "sections").glob("*.md"):
        section.write_text(section.read_text(encoding="utf-8").split("-->", 1)[1], encoding="utf-8")
    video = trained / "report" / "运行示例.mp4"
    video.write_bytes(b"film")
    record = {"video_sha256": file_sha256(video), "adapter_sha256": "another model's"}
    write_json(trained / "report" / "results" / "video.json", record | {"video_sha256": "a film of theirs"})
    assert run(trained, "report") == 0 and run(trained, "submit") == 0
    for path in trained.rglob("*"):  # what a copied folder looks like
        os.utime(path, (0, 0)) if path.is_file() and path.suffix == ".pdf" else None
    assert run(trained, "submit") == 0
    assert run(trained, "evaluate") == 0
    write_json(trained / "report" / "results" / "video.json", record)
    with (trained / "dataset" / "identity.jsonl").open("a", encoding="utf-8") as lines:
        lines.write("{\n")
    capsys.readouterr()
    assert run(trained, "submit") == 2
    error = capsys.readouterr().err
    assert (
        "报告不是用现在的测试结果生成的" in error
        and "数据有 1 个错误" in error
        and "录的不是这个模型" in error
    )


def test_the_ledger_holds_every_run_with_its_settings_and_scores(trained, capsys):
    assert (
        run(trained, "evaluate") == 0
        and run(trained, "evaluate", "--run", "lookup") == 0
        and run(trained, "runs") == 0
    )
    lines = (trained / "report" / "results" / "runs.csv").read_text(encoding="utf-8").splitlines()
    assert (
        [line.split(",")[0] for line in lines] == ["运行", "main", "lookup"]
        and "秩" in lines[0]
        and "自然结束" in lines[0]
    )
    assert "main" in capsys.readouterr().out
    workbook = load_workbook(trained)
    shown = ledger.readable(ledger.ledger(workbook))
    assert (
        shown.loc["lookup", "秩"] == ""
        and shown.loc["main", "行数"].isdecimal()
        and shown.loc["main", "自然结束"].endswith("%")
    )


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(browser_path() is None, reason=BROWSER_HELP)
def test_the_video_shows_every_question_and_goes_into_the_zip(trained):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    assert run(trained, "demo") == 0
    frames = imageio_ffmpeg.read_frames(str(trained / "report" / "运行示例.mp4"))
    described = next(frames)
    assert (
        described["size"] == (1280, 720) and described["codec"] == "h264" and 10 < described["duration"] <= 90
    )
    assert (trained / "report" / "运行示例.mp4").stat().st_size < 20e6
    assert len(next(frames)) == 1280 * 720 * 3
    frames.close()
    assert (
        run(trained, "evaluate") == 0
        and run(trained, "report") == 0
        and run(trained, "submit", "--draft") == 0
    )
    with zipfile.ZipFile(trained / "旋律小队_大作业.zip") as archive:
        assert archive.getinfo("运行示例.mp4").file_size > 10_000


@pytest.mark.parametrize(("line", "said"), [
    ("null", "null 不是问题"), ('""', "不是问题"), ('{"text": "你好"}', "不认识字段 text；可以写的是 question"),
    ('{"question": ""}', "应是一句话"), ('{"messages": [{"role": "bot"}]}', "缺少 content"), ("{}", "正好有一个"),
])  # fmt: skip
def test_what_is_no_question_is_refused_with_its_line_and_the_known_keys(tmp_path, line, said):
    path = tmp_path / "q.jsonl"
    path.write_text(f"你好\n{line}\n", encoding="utf-8")
    with pytest.raises(WorkbookError, match=said) as caught:
        read_questions(path)
    assert f"{path}:2:" in str(caught.value)


def test_questions_are_read_as_people_paste_them(tmp_path):
    path = tmp_path / "q.txt"
    lines = [
        "1. 你是谁？",
        "（2）你叫什么？",
        "3、 问：谁做的你？",
        "Q: hello?",
        "{x|x>0} 是什么意思？",
        "3.14 是什么",
        "",
        "  前后  ",
        "甲\u2028乙",
        '{"question": "周杰伦？"}',
        "# 这是问题",
    ]
    path.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    asked = [dialogue[-1]["content"] for dialogue in read_questions(path)]
    assert asked == [
        "你是谁？",
        "你叫什么？",
        "谁做的你？",
        "hello?",
        "{x|x>0} 是什么意思？",
        "3.14 是什么",
        "前后",
        "甲\u2028乙",
        "周杰伦？",
        "# 这是问题",
    ]


@pytest.mark.parametrize("ending", ["退出\n", "exit\n", "QUIT\n", "\n", ""])
def test_a_talk_ends_at_a_goodbye(project, monkeypatch, capsys, ending):
    monkeypatch.setattr("sys.stdin", io.StringIO("你好\n" + ending))
    assert run(project, "chat", "--run", "base") == 0
    out = capsys.readouterr()
    assert out.out.count("答：") == 1 and "训练" not in out.out + out.err


def test_the_show_takes_the_next_free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port


def test_mistakes_in_the_settings_are_named_as_they_are(project, capsys):
    path = project / "workbook.toml"
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")

    def number(key):
        return next(n for n, line in enumerate(lines, 1) if line.startswith(key))

    for key, value, said in (
        ("name", "“小音”", "用了中文引号"), ("seed", '"42"', "去掉引号"), ("name", "小音", "英文双引号"),
        ("profile", '"big"', "profile 应是"), ("questions", "[“你是谁”]", "用了中文引号"),
    ):  # fmt: skip
        lines = text.split("\n")
        lines[number(key) - 1] = f"{key} = {value}"
        path.write_text("\n".join(lines), encoding="utf-8")
        assert run(project, "runs") == 2
        error = capsys.readouterr().err
        assert said in error and f"{path}:{number(key)}:" in error, (key, value, error)
    path.write_text("", encoding="utf-8")
    assert run(project, "runs") == 2 and "文件是空的" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["--experiment", "log"], "是一组实验"),
    (["--experiment", "run01", "--resume", "--device", "cpu"], "--device、--resume"),
    (["--experiment", "run01", "--run", "other"], "不能和 --run"),
])  # fmt: skip
def test_an_experiment_refuses_what_it_would_ignore(project, capsys, arguments, said):
    assert run(project, "train", *arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_scores_from_before_a_second_training_are_not_reported(trained, capsys):
    assert run(trained, "evaluate") == 0
    assert "核对" in capsys.readouterr().out
    assert run(trained, "train", "--profile", "smoke", "--seed", "7") == 0
    assert run(trained, "report") == 2
    assert "minimind evaluate --run main" in capsys.readouterr().err
    assert run(trained, "runs") == 0
    assert "%" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("outside", [False, True])
def test_the_zip_holds_the_base_that_the_run_needs(project, tmp_path_factory, outside):
    root = tmp_path_factory.mktemp("elsewhere") if outside else project / "weights"
    shutil.move(project / "weights" / "base", root / "mine")
    settings = (project / "workbook.toml").read_text(encoding="utf-8")
    place = (root / "mine").as_posix() if outside else "weights/mine"
    (project / "workbook.toml").write_text(settings.replace("weights/base", place), encoding="utf-8")
    (project / "experiments.toml").write_text("", encoding="utf-8")
    for name in ("build-dataset", "train", "evaluate", "report"):
        small = ["--profile", "smoke"] if name in ("train", "evaluate") else []
        assert run(project, name, *small) == 0
    assert run(project, "submit", "--draft") == 0
    with zipfile.ZipFile(project / "旋律小队_大作业.zip") as archive:
        names = archive.namelist()
        settings = archive.read("minimind/workbook.toml").decode()
    assert len(names) == len(set(names)) and "minimind/experiments.toml" in names
    assert "minimind/weights/mine/model.safetensors" in names and 'base = "weights/mine"' in settings


@pytest.mark.parametrize("text", ["x", "0", "1.5", "600"])
def test_a_number_out_of_range_is_refused_in_chinese(capsys, text):
    with pytest.raises(SystemExit):
        main(["ask", "--questions", "x", "--max-new-tokens", text])
    assert "应是 1 到 512 之间的整数" in capsys.readouterr().err
