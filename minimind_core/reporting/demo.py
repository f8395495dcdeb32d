"""运行示例.mp4: the model answering the class show's questions, drawn from its real answers as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pylopdf_fonts_zh_cn
from PIL import Image, ImageDraw, ImageFont

from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.evaluation.generation import Decoding, stream
from minimind_core.files import replacing
from minimind_core.reporting.submission import VIDEO
from minimind_core.training.runs import load_run

SIZE, RATE = (1280, 720), 10  # pixels, frames a second
MARGIN, LINE, SHOWN = 60, 44, 6  # pixels; lines of talk below the title; turns kept on the screen
INK, BLUE, GREY, PAPER = (32, 33, 36), (0, 114, 178), (120, 120, 120), (255, 255, 255)
Turn = tuple[str, str]


class Painter:
    """Draws one frame of the talk."""

    def __init__(self, workbook: Workbook, run: str) -> None:
        path = str(pylopdf_fonts_zh_cn.sans_path())
        self.font, self.large = ImageFont.truetype(path, 26), ImageFont.truetype(path, 40)
        self.title = f"{workbook.persona.name} · {workbook.persona.topic}问答"
        self.subtitle = f"{workbook.persona.team} · {workbook.course} · 运行 {run}"

    def wrapped(self, text: str) -> list[str]:
        """Lines that fit the width."""
        lines, line = [], ""
        for character in text:
            if self.font.getlength(line + character) > SIZE[0] - 2 * MARGIN:
                lines.append(line)
                line = ""
            line += character
        return [*lines, line]

    def frame(self, turns: Sequence[Turn]) -> bytes:
        """RGB bytes of a frame with the last turns."""
        image = Image.new("RGB", SIZE, PAPER)
        draw = ImageDraw.Draw(image)
        draw.text((MARGIN, 30), self.title, INK, self.large)
        draw.text((MARGIN, 88), self.subtitle, GREY, self.font)
        lines = [(line, colour) for q, a in turns[-SHOWN:] for text, colour in ((f"问：{q}", BLUE), (f"答：{a}", INK)) for line in self.wrapped(text)]
        for index, (line, colour) in enumerate(lines[-12:]):
            draw.text((MARGIN, 146 + index * LINE), line, colour, self.font)
        return image.tobytes()


def talk(workbook: Workbook, run: str, questions: Sequence[str]) -> Iterator[list[Turn]]:
    """The growing talk: a question appears as it is typed, its answer as the model writes it, then both stay for a moment."""
    model, tokenizer = load_run(workbook, run)
    done: list[Turn] = []
    yield from [done] * (2 * RATE)
    for question in questions:
        yield from ([*done, (question[:end], "")] for end in range(1, len(question) + 1))
        answer = ""
        for answer in stream(model, tokenizer, [{"role": "user", "content": question}], Decoding()):
            yield [*done, (question, answer)]
        done = [*done, (question, answer)]
        yield from [done] * RATE
    yield from [done] * (2 * RATE)


def record_demo(workbook: Workbook, run: str = "main") -> Path:
    """Write report/运行示例.mp4 (H.264, 1280 × 720)."""
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise WorkbookError("录制运行示例需要 imageio-ffmpeg 这个包。请先运行 pip install imageio-ffmpeg。") from error
    painter, target = Painter(workbook, run), workbook.root / "report" / VIDEO
    with replacing(target) as temporary:
        writer = imageio_ffmpeg.write_frames(str(temporary), SIZE, fps=RATE, codec="libx264", quality=6, macro_block_size=16)
        writer.send(None)
        for turns in talk(workbook, run, workbook.show_questions):
            writer.send(painter.frame(turns))
        writer.close()
    return target
