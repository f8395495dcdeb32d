"""运行示例.mp4: the real class-show page, driven in Chromium, with captions.

What is seen is what the model answers.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from minimind_core.collection.facts import read_facts
from minimind_core.config import Workbook
from minimind_core.conversations.mixing import space_of, unknown_of
from minimind_core.errors import WorkbookError
from minimind_core.files import replacing, write_json
from minimind_core.reporting.browser import PATIENCE, launch, local_server
from minimind_core.reporting.submission import VIDEO
from minimind_core.training.run_files import adapter_file, file_sha256
from minimind_core.ui.page import page_command, page_notebook

SIZE, ZOOM, RATE = (1280, 720), 4 / 3, 10  # pixels, pixels of the film to one of the page, frames a second
CAPTION = """text => {
  const made = () => document.body.appendChild(Object.assign(document.createElement('div'), {id: 'caption'}));
  const box = document.getElementById('caption') || made();
  box.textContent = text;
  box.style.cssText = 'position:fixed;left:0;right:0;bottom:0;padding:14px;background:#202124;color:#fff;'
    + 'z-index:9999;font-size:20px;text-align:center';
}"""


class Film:
    """Frames of a page, taken while something happens."""

    def __init__(self, page: Any, writer: Any) -> None:
        self.page, self.writer = page, writer

    def caption(self, text: str) -> None:
        """A line at the bottom of the page."""
        self.page.evaluate(CAPTION, text)

    def shoot(self, until: Callable[[], bool] = lambda: False, seconds: float = 2.0) -> bool:
        """Take frames for so long, or until something is true; says whether it came true."""
        start, taken = time.monotonic(), 0
        while True:
            done, now = until(), time.monotonic() - start
            # the film keeps the clock's pace, also where a picture takes longer than its frame
            if taken <= now * RATE:
                picture = (
                    Image.open(io.BytesIO(self.page.screenshot(type="jpeg", quality=85)))
                    .convert("RGB")
                    .resize(SIZE)
                    .tobytes()
                )
                while taken <= now * RATE:
                    self.writer.send(picture)
                    taken += 1
            if done or now >= seconds:
                return done
            time.sleep(0.02)

    def ask(self, question: str) -> None:
        """Type a question letter by letter, send it with Enter, and film the answer below the others."""
        self.page.get_by_placeholder("请输入问题…").click()
        for letter in question:
            self.page.keyboard.insert_text(letter)
            self.shoot(seconds=0.15)
        self.page.keyboard.press("Enter")
        verdict = self.page.get_by_role("button", name="对", exact=True)

        def answered() -> bool:
            """Whether the question stands on the page and its answer can be judged."""
            return question in self.page.locator("#rendered_cells").inner_text() and verdict.is_enabled()

        if not self.shoot(answered, PATIENCE):
            raise WorkbookError(
                f"录制时“{question}”没有得到回答。请先在课堂展示页面里试一试：minimind show。"
            )
        self.shoot(seconds=2.5)


def play(film: Film, workbook: Workbook, questions: Sequence[str]) -> None:
    """The whole show: who it is, the class's questions, one that it cannot know, and how it was trained."""
    film.caption(f"{workbook.persona.team}的{workbook.persona.name}：{workbook.persona.topic}问答")
    film.shoot(seconds=2.5)
    for number, question in enumerate(questions, 1):
        film.caption(f"第 {number} 题：{question}")
        film.ask(question)
    film.caption("没有学过的，要说不知道")
    space = space_of(workbook, read_facts(workbook.facts), workbook.seed)
    film.ask(unknown_of(workbook, space).plain_question())
    curve = workbook.figures / "loss.png"
    if curve.is_file():
        picture = base64.b64encode(curve.read_bytes()).decode()
        film.page.set_content(
            '<body style="margin:0;text-align:center">'
            f'<img style="height:465px" src="data:image/png;base64,{picture}"></body>'
        )
        film.caption("训练过程：损失下降，小测成绩上升")
        film.shoot(seconds=4.0)


def record_demo(workbook: Workbook, run: str = "main") -> Path:
    """Write report/运行示例.mp4 (H.264, 1280 × 720)."""
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise WorkbookError(
            "录制运行示例需要 imageio-ffmpeg 这个包。请先运行 pip install imageio-ffmpeg。"
        ) from error
    adapter = adapter_file(workbook, run)
    target, log = workbook.root / "report" / VIDEO, workbook.runs / "show.log"
    command, environment = page_command(page_notebook(workbook, [run, "base"]), "{port}", browser=False)
    with (
        replacing(target) as temporary,
        launch() as browser,
        local_server(command, workbook.root, log, environment) as (address, _),
    ):
        viewport = {name: int(size / ZOOM) for name, size in zip(("width", "height"), SIZE, strict=True)}
        page = browser.new_page(viewport=viewport, device_scale_factor=ZOOM, locale="zh-CN")
        page.goto(address)
        page.get_by_role("button", name="发送").wait_for(timeout=PATIENCE * 1000)
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            SIZE,
            fps=RATE,
            codec="libx264",
            quality=6,
            macro_block_size=16,
            output_params=["-f", "mp4"],
        )
        writer.send(None)
        try:
            play(Film(page, writer), workbook, workbook.show_questions)
        finally:
            writer.close()
    made = {"video_sha256": file_sha256(target), "adapter_sha256": adapter and file_sha256(adapter)}
    write_json(workbook.results / "video.json", made)
    return target
