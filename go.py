"""Set up and run one task with nothing but Python: `python3 go.py report` (Linux, macOS, Windows).

The first call makes .venv and installs what the task needs; later calls start at once. MINIMIND_TORCH_INDEX
names another wheel index for torch (for example one with CUDA); it counts when .venv is first made.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")

# Chinese menus, no question about news
LAB_SETTINGS = f"--LabApp.app_settings_dir={ROOT / 'minimind_core' / 'ui' / 'share' / 'lab'}"
QUICK = ["-m", "not slow and not browser"]  # the tests that a team runs by default
# task: (what it does, extra of pyproject.toml, commands after the interpreter)
TASKS: dict[str, tuple[str, str, list[list[str]]]] = {
    "setup": ("只安装环境", "", []),
    "lab": (
        "打开中文的 JupyterLab",
        "",
        [["-m", "jupyterlab", "--LabApp.default_url=/lab/tree/notebooks", LAB_SETTINGS]],
    ),
    "report": (
        "运行全部笔记本，生成 PDF 报告和压缩包",
        "",
        [
            ["scripts/run_notebooks.py"],
            ["scripts/update_readme.py"],
            ["-m", "minimind_core.cli", "submit", "--draft"],
        ],
    ),
    "smoke": (
        "用极小的设置试跑全部笔记本",
        "",
        [["scripts/run_notebooks.py", "--profile", "smoke", "--scratch", "runs/smoke"]],
    ),
    "test": ("运行测试，约两分钟；加 --all 运行全部，约半小时", "test", [["-m", "pytest"]]),
    "lint": (
        "检查代码风格",
        "lint",
        [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."]],
    ),
}


def run(*command: str | Path) -> None:
    """Run a command in the project folder; stop with its exit code when it fails."""
    environment = {**os.environ, "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    code = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, check=False).returncode
    if code:
        sys.exit(code)


def set_up(extra: str) -> None:
    """Make .venv and install torch first, pinned, then the package; skipped when nothing has changed."""
    wanted = hashlib.sha256(
        b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    ).hexdigest()
    stamp = VENV / f".installed-{extra or 'core'}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("正在准备环境（只有第一次需要，约 1–3 分钟）……", flush=True)
    if not PYTHON.exists():
        try:
            venv.create(VENV, with_pip=True)
        except (OSError, subprocess.CalledProcessError):
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit(
                "无法建立虚拟环境：Debian、Ubuntu 请先运行 sudo apt "
                "install python3-venv；也请检查磁盘空间和写入权限。"
            )
    index = os.environ.get("MINIMIND_TORCH_INDEX")
    # an index of its own has its own versions
    source = ["--index-url", index] if index else ["-c", "constraints.txt"]
    run(PYTHON, "-m", "pip", "install", "-q", *source, "torch")
    run(PYTHON, "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", f".[{extra}]" if extra else ".")
    stamp.write_text(wanted)


def main() -> None:
    """Run the task named on the command line."""
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("需要 Python 3.11 或更新的版本。")
    if len(sys.argv) < 2 or sys.argv[1] not in TASKS:
        print(
            "用法：python3 go.py 任务 [参数]\n"
            + "\n".join(f"  {name:8}{task[0]}" for name, task in TASKS.items())
        )
        sys.exit(0 if len(sys.argv) < 2 or sys.argv[1] in ("help", "-h", "--help") else 2)
    name, *given = sys.argv[1:]
    _, extra, commands = TASKS[name]
    if name == "test":
        given = [word for word in given if word != "--all"] if "--all" in given else [*QUICK, *given]
    set_up(extra)
    for index, command in enumerate(commands):
        run(PYTHON, *command, *(given if index == 0 else []))


if __name__ == "__main__":
    main()
