"""Paths, documented settings and the reader of workbook.toml."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minimind_core.errors import WorkbookError
from minimind_core.mixture import Draws, Mix
from minimind_core.settings import line_of, read_settings

LINEAR_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network. The defaults are MiniMind2-Small: 25,829,888 parameters."""

    hidden_size: int = 512
    n_layers: int = 8
    n_heads: int = 8
    n_kv_heads: int = 2
    intermediate_size: int = 1408
    vocab_size: int = 6400
    max_positions: int = 2048  # longest context the rotary table covers, tokens
    rope_theta: float = 1e6
    norm_eps: float = 1e-5
    qk_norm: bool = False  # normalise each head's queries and keys, as minimind-3 (Qwen3's layout) does

    def __post_init__(self) -> None:
        if self.hidden_size % self.n_heads or self.n_heads % self.n_kv_heads:
            raise ValueError("hidden_size must be a multiple of n_heads, and n_heads of n_kv_heads")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.n_heads


@dataclass(frozen=True)
class LoraConfig:
    """Where adapters sit and how strong they are."""

    rank: int = 16
    alpha: float = 32.0  # the update is scaled by alpha / rank
    target_modules: tuple[str, ...] = LINEAR_NAMES
    first_layer: int = 0  # layers below this one get no adapter, and no gradient has to be computed for them
    seed: int = 42  # of the random A matrices

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.target_modules or self.first_layer < 0:
            raise ValueError(
                "rank and alpha must be positive, target_modules not empty and first_layer not negative"
            )

    @property
    def scale(self) -> float:
        """Factor of the update."""
        return self.alpha / self.rank

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LoraConfig:
        """The settings in an adapter's header; fields of older versions are left out."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        return cls(**{**known, "target_modules": tuple(values["target_modules"])})


@dataclass(frozen=True)
class TrainConfig:
    """How parameters are updated; the data source decides how many steps there are."""

    learning_rate: float = 2e-3  # peak rate of AdamW
    matrix_learning_rate: float | None = None  # peak rate of Muon for hidden matrices; None: AdamW for all
    matrix_decay: float = 0.0  # Muon's decoupled weight decay
    lora_b_ratio: float = 1.0  # rate of LoRA's B over that of its A (LoRA+, arXiv:2402.12354)
    warmup: float = 0.05  # share of the steps in which the rate rises from 0
    decay: float = 0.95  # share of the steps, at the end, in which it falls linearly to 0
    stock_schedule: bool = False  # MiniMind's own instead: half a cosine from 1.1 to 0.1 of learning_rate
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    seed: int = 42
    validate_every: int = 50  # steps between validation losses
    checkpoint_seconds: float = 60.0  # least time between two checkpoints

    def __post_init__(self) -> None:
        if not 0 <= self.warmup + self.decay <= 1:
            raise ValueError("warmup + decay must lie between 0 and 1")
        if min(self.learning_rate, self.clip, self.lora_b_ratio) <= 0:
            raise ValueError("learning_rate, lora_b_ratio and clip must be positive")


@dataclass(frozen=True)
class Profile:
    """How much work a run does: the same code for a trial, the course and a long night."""

    epochs: int  # passes over the mixed training file
    tokens_per_step: int  # padded tokens in one optimizer step
    train_rows: int | None  # at most this many rows of the training file; None: all
    test_questions: int | None  # at most this many questions of each suite; None: all
    train: TrainConfig
    lora: LoraConfig
    rows_per_step: int | None = (
        None  # so many conversations in a step, whatever their length, instead of tokens_per_step
    )
    shuffle: bool = True  # another order each pass; False: the file's own, as stock MiniMind does
    learn_end: bool = True  # teach the end token; False shows what a truncation that drops it does

    def on(self, device: str) -> Profile:
        """The same work in steps that keep a device of this kind (cpu, cuda, mps) busy.

        A GPU takes four times larger steps in about the same time. The rate grows with the root of the step
        (arXiv:2205.10287); trials on few rows stay as they are.
        """
        if device == "cpu" or self.train_rows or self.rows_per_step:
            return self
        train = replace(self.train, learning_rate=self.train.learning_rate * GPU_TIMES**0.5)
        return replace(self, tokens_per_step=self.tokens_per_step * GPU_TIMES, train=train)


GPU_TIMES = 4  # so many times larger are a GPU's steps


PROFILES = {
    "smoke": Profile(
        1, 1024, 96, 6, TrainConfig(learning_rate=3e-3, validate_every=2), LoraConfig(rank=4, alpha=8)
    ),
    "default": Profile(
        1,
        2048,
        None,
        400,
        TrainConfig(learning_rate=2e-3, lora_b_ratio=4.0),
        # a fifth less time a step than with all layers, and as many right answers (report/LOG.md)
        LoraConfig(rank=32, alpha=64, first_layer=2),
    ),
    "full": Profile(6, 1024, None, None, TrainConfig(learning_rate=4e-3), LoraConfig(rank=32, alpha=64)),
}
# stock MiniMind: square layers only
STOCK_LORA = LoraConfig(rank=8, alpha=8, target_modules=("q_proj", "o_proj"))


@dataclass(frozen=True)
class Persona:
    """Who the model is."""

    name: str  # what it calls itself
    team: str  # who trained it
    topic: str  # what it answers about
    scope: str  # the subjects it knows, as read aloud


@dataclass(frozen=True)
class Workbook:
    """Everything a team edits, read from workbook.toml; paths are absolute."""

    root: Path
    persona: Persona
    course: str
    members: tuple[str, ...]
    subjects: tuple[str, ...]  # what the facts are about, as the cover and the model name it
    facts: Path
    base: Path
    dataset: Path  # folder of the data files
    texts: Path  # folder of the topic's own wordings and other texts
    mix: Mix = field(default_factory=Mix)
    draws: Draws = field(default_factory=Draws)
    profile: str = "default"
    seed: int = 42
    show_questions: tuple[str, ...] = ()  # the team's own questions for the class
    class_name: str = ""  # these three stand on the report's cover, where they are given
    date: str = ""
    student_ids: tuple[str, ...] = ()  # one for each member, in the same order

    @property
    def wordings(self) -> Path:
        """The team's own wordings, where it has written any."""
        return self.texts / "wordings.toml"

    def questions(self, split: str) -> Path:
        """Questions that others wrote.

        `test` is asked once all is settled, `valid` is for choosing settings.
        """
        return self.root / "dataset" / "questions" / f"{split}.jsonl"

    @property
    def results(self) -> Path:
        """Folder of the measured figures that README and report quote."""
        return self.root / "report" / "results"

    @property
    def figures(self) -> Path:
        """Folder of the pictures made from results."""
        return self.root / "figures"

    @property
    def runs(self) -> Path:
        """Folder of training runs."""
        return self.root / "runs"


def find_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` that holds workbook.toml."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "workbook.toml").is_file():
            return folder
    raise WorkbookError(f"{start}: 这里和上级目录都没有 workbook.toml。请在项目目录里运行。")


def join_names(names: tuple[str, ...]) -> str:
    """甲、乙和丙."""
    return names[0] if len(names) == 1 else "、".join(names[:-1]) + "和" + names[-1]


def load_workbook(root: Path | None = None) -> Workbook:
    """Read and check workbook.toml; every problem names file, line and remedy."""
    root = find_root(root)
    path = root / "workbook.toml"
    settings = read_settings(path)
    project, training = settings.project, settings.training
    if training.profile not in PROFILES:
        line = line_of(path.read_text(encoding="utf-8-sig"), "training", "profile")
        raise WorkbookError(
            f"{path}:{line}: [training] profile 应是 {'、'.join(PROFILES)} 之一，实际为 {training.profile}。"
        )
    if project.student_ids and len(project.student_ids) != len(project.members):
        line = line_of(path.read_text(encoding="utf-8-sig"), "project", "student_ids")
        raise WorkbookError(
            f"{path}:{line}: [project] student_ids 有 {len(project.student_ids)} 个，成员有 "
            f"{len(project.members)} 个。请一人写一个，次序相同。"
        )
    subjects = tuple(project.subjects)
    return Workbook(
        root=root,
        persona=Persona(settings.persona.name, project.team, project.topic, join_names(subjects)),
        course=project.course,
        members=tuple(project.members),
        subjects=subjects,
        facts=root / settings.data.facts,
        base=root / training.base,
        dataset=root / "dataset",
        texts=root / settings.data.texts,
        mix=settings.mix,
        draws=settings.draws,
        profile=training.profile,
        seed=training.seed,
        show_questions=tuple(settings.show.questions),
        class_name=project.class_name,
        date=project.date,
        student_ids=tuple(project.student_ids),
    )
