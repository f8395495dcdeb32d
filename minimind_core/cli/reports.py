"""Verbs that write what is handed in."""

from __future__ import annotations

import argparse

from minimind_core.config import Workbook
from minimind_core.reporting.document import build_report
from minimind_core.reporting.submission import build_submission, checklist
from minimind_core.ui.demo import record_demo


def report(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Build the PDF."""
    print(f"报告：{build_report(workbook, arguments.run)}")
    return 0


def demo(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Record the video."""
    path = record_demo(workbook, arguments.run)
    print(f"运行示例：{path}（{path.stat().st_size / 1e6:.1f} MB）")
    return 0


def submit(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Build the zip."""
    path, missing = build_submission(workbook, arguments.run, draft=arguments.draft)
    print(f"压缩包：{path}（{path.stat().st_size / 1e6:.1f} MB）")
    for part, there, size in checklist(path):
        print(f"  {'✓' if there else '✗'} {part}  {size / 1e6:.2f} MB")
    for text in missing:
        print(f"提醒：{text}")
    return 0
