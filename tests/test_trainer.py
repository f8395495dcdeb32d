import itertools
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, random_model

from minimind_core.config import PROFILES, LoraConfig, Profile, TrainConfig
from minimind_core.conversations.mixing import write_dataset
from minimind_core.errors import WorkbookError
from minimind_core.modeling.fast import release_helpers
from minimind_core.modeling.lora import add_lora, lora_state
from minimind_core.training import trainer
from minimind_core.training.batches import IGNORE, Batch
from minimind_core.training.optimizers import orthogonalize, rate_factor
from minimind_core.training.runs import prepare_run
from minimind_core.training.trainer import train

CONFIG = TrainConfig(learning_rate=1e-2, validate_every=3)


def source(steps: int = 8) -> list[list[Batch]]:
    """Random rows, the same ones each time."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(3, 50, (steps, 4, 9), generator=generator)
    return [[Batch(block[:, :-1], block[:, 1:])] for block in rows]


def adapter(**options) -> dict[str, torch.Tensor]:
    model = add_lora(random_model(), LoraConfig(rank=2, alpha=4))
    list(train(model, source(), CONFIG, **options))
    return lora_state(model)


def same(a, b) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a.keys() | b.keys())


def test_training_lowers_the_loss_and_same_settings_give_the_same_bits():
    model = add_lora(random_model(), LoraConfig(rank=2, alpha=4))
    records = list(train(model, source(1) * 30, CONFIG))
    assert records[-1].loss < 0.8 * records[0].loss
    assert same(adapter(), adapter())


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, cut):
    checkpoint = tmp_path / "checkpoint.pt"
    model = add_lora(random_model(), LoraConfig(rank=2, alpha=4))
    started = train(model, source(), CONFIG, checkpoint=checkpoint)
    list(itertools.islice(started, cut))
    started.close()
    again = add_lora(random_model(), LoraConfig(rank=2, alpha=4))
    records = list(train(again, source(), CONFIG, checkpoint=checkpoint))
    assert [r.step for r in records] == list(range(cut + 1, 9))
    assert same(lora_state(again), adapter())


def test_muon_resumes_to_the_same_bits_too(tmp_path):
    config = TrainConfig(learning_rate=1e-2, matrix_learning_rate=0.02)
    whole, broken = random_model(), random_model()
    list(train(whole, source(), config))
    started = train(broken, source(), config, checkpoint=tmp_path / "c.pt")
    list(itertools.islice(started, 3))
    started.close()
    resumed = random_model()
    list(train(resumed, source(), config, checkpoint=tmp_path / "c.pt"))
    assert same(dict(whole.named_parameters()), dict(resumed.named_parameters()))


def test_a_gpu_takes_larger_steps_at_a_higher_rate_but_not_in_a_trial():
    for name in ("default", "full"):
        usual, large = PROFILES[name], PROFILES[name].on("cuda")
        assert usual.on("cpu") is usual and large == usual.on("mps") and large.lora == usual.lora
        times = large.tokens_per_step / usual.tokens_per_step
        assert times > 1 and large.train.learning_rate / usual.train.learning_rate == pytest.approx(
            times**0.5
        )
    assert PROFILES["smoke"].on("cuda") is PROFILES["smoke"]


def test_the_steps_of_a_gpu_train_a_run(workbook, monkeypatch):
    write_dataset(workbook)
    asked, large = [], replace(PROFILES["smoke"], train_rows=None).on("cuda")
    usual = replace(PROFILES["smoke"], train_rows=None)
    monkeypatch.setitem(PROFILES, "smoke", usual)
    monkeypatch.setattr(Profile, "on", lambda self, kind: asked.append(kind) or large)
    run = prepare_run(workbook, "large", "smoke", device="cpu")
    records = list(run.train())
    assert asked == ["cpu"] and run.settings["tokens_per_step"] == large.tokens_per_step
    assert max(batch.tokens.numel() for step in run.source for batch in step) > usual.tokens_per_step
    assert len(records) == len(run.source) and records[-1].loss < records[0].loss


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    adapter(checkpoint=tmp_path / "c.pt")
    other = add_lora(random_model(), LoraConfig(rank=3, alpha=4))
    with pytest.raises(WorkbookError, match="参数形状不同"):
        list(train(other, source(), CONFIG, checkpoint=tmp_path / "c.pt"))


def test_a_step_without_answers_stops_with_a_message():
    empty = Batch(torch.ones(1, 3, dtype=torch.long), torch.full((1, 3), IGNORE))
    with pytest.raises(WorkbookError, match="没有任何需要学习的"):
        list(train(random_model(), [[empty]], CONFIG))


def test_a_loss_that_is_not_finite_stops_with_a_message():
    model = random_model()
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(WorkbookError, match="NaN"):
        list(train(model, source(1), CONFIG))


def test_two_batches_of_a_step_weigh_each_token_once():
    block = source(1)[0][0]
    halves = [Batch(block.tokens[:1], block.labels[:1]), Batch(block.tokens[1:], block.labels[1:])]
    losses = [next(train(random_model(), [batches], CONFIG)).loss for batches in ([block], halves)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rate_rises_stays_and_falls():
    config = TrainConfig(warmup=0.1, decay=0.5)
    factors = [rate_factor(step, 100, config) for step in range(100)]
    assert factors[:9] == sorted(factors[:9]) and factors[0] == pytest.approx(0.1)
    assert set(factors[10:50]) == {1.0}
    assert factors[50:] == sorted(factors[50:], reverse=True) and factors[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (16, 16)])
def test_orthogonalized_updates_have_singular_values_near_one(shape):
    values = torch.linalg.svdvals(
        orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    )
    assert values.min() > 0.3 and values.max() < 1.3


def test_tiny_config_is_tiny():
    assert sum(p.numel() for p in random_model(TINY).parameters()) < 300_000


def test_an_interrupt_inside_a_step_waits_for_its_end(tmp_path, monkeypatch):
    """Ctrl-C while the optimizer is writing: the step ends, is reported and saved, and a resume gives the
    same bits.
    """
    whole = adapter()
    real, calls = trainer.optimizer_step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(trainer, "optimizer_step", interrupted)
    model, records = add_lora(random_model(), LoraConfig(rank=2, alpha=4)), []
    with pytest.raises(KeyboardInterrupt):
        for record in train(model, source(), CONFIG, checkpoint=tmp_path / "c.pt"):
            records.append(record)
    assert [r.step for r in records] == [1, 2, 3]
    monkeypatch.undo()
    again = add_lora(random_model(), LoraConfig(rank=2, alpha=4))
    assert [r.step for r in train(again, source(), CONFIG, checkpoint=tmp_path / "c.pt")] == [4, 5, 6, 7, 8]
    assert same(lora_state(again), whole)


def test_lora_b_may_learn_faster_than_lora_a():
    from minimind_core.modeling.lora import add_lora
    from minimind_core.training.optimizers import build_optimizers

    model = add_lora(random_model(), LoraConfig(rank=2, alpha=4))
    (optimizer,) = build_optimizers(model, TrainConfig(learning_rate=1e-3, lora_b_ratio=8.0))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(
        rates[id(p)] == (8e-3 if name.endswith("lora_B") else 1e-3)
        for name, p in model.named_parameters()
        if p.requires_grad
    )
    assert len(rates) == sum(p.requires_grad for p in model.parameters())


@pytest.mark.skipif(
    not list((Path(torch.__file__).parent / "lib").glob("libgomp*")), reason="another OpenMP runtime"
)
def test_helpers_that_are_let_go_come_back_when_needed():
    def threads():
        return len(list(Path("/proc/self/task").iterdir()))

    values, before = torch.randn(2_000_000), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        expected, busy = values.exp().sum(), threads()
        release_helpers()
        assert threads() < busy
        assert values.exp().sum() == expected and threads() == busy
    finally:
        torch.set_num_threads(before)
