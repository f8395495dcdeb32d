import contextlib

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, random_model

from minimind_core.config import LoraConfig, ModelConfig
from minimind_core.modeling import fast
from minimind_core.modeling.checkpoint import load_base, save_base
from minimind_core.modeling.fast import LinearCrossEntropy, LoraProduct, RMSNormalize, Rotate
from minimind_core.modeling.lora import add_lora, lora_state
from minimind_core.modeling.minimind import Memory, MiniMind
from minimind_core.modeling.tokenizer import PAD_ID
from minimind_core.training import trainer
from minimind_core.training.batches import Batch

TOKENS = torch.tensor([[5, 9, 200, 31, 7, 8], [6, 6, 17, 4000, 3, 2]])


def test_default_shape_has_the_parameters_of_minimind2_small():
    assert sum(p.numel() for p in MiniMind(ModelConfig()).parameters()) == 25_829_888


def test_a_later_token_never_changes_an_earlier_output(model):
    changed = TOKENS.clone()
    changed[:, -1] = 11
    assert torch.equal(model(TOKENS)[:, :-1], model(changed)[:, :-1])
    assert not torch.equal(model(TOKENS)[:, -1], model(changed)[:, -1])


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_cache_gives_the_same_states_as_one_pass(model, cut):
    whole, _ = model.hidden(TOKENS)
    _, cache = model.hidden(TOKENS[:, :cut])
    rest, _ = model.hidden(TOKENS[:, cut:], cache)
    torch.testing.assert_close(rest, whole[:, cut:])


@torch.no_grad()
def test_cache_has_room_for_any_number_of_tokens_one_by_one(model, monkeypatch):
    monkeypatch.setattr(Memory, "ROOM", 2)
    whole, _ = model.hidden(TOKENS)
    cache = None
    for place in range(TOKENS.shape[1]):
        states, cache = model.hidden(TOKENS[:, place : place + 1], cache)
        torch.testing.assert_close(states[:, 0], whole[:, place])


def test_wanted_positions_have_the_states_that_they_have_among_all(model):
    wanted = torch.tensor([1, 2, 5])
    states, _ = model.hidden(TOKENS, wanted=wanted)
    torch.testing.assert_close(states, model.hidden(TOKENS)[0][:, wanted])


def test_fresh_blocks_are_the_identity():
    model = MiniMind(TINY)
    states, _ = model.hidden(TOKENS)
    torch.testing.assert_close(states, model.model.norm(model.model.embed_tokens(TOKENS)))


def test_saved_folder_loads_in_transformers_with_equal_logits(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    save_base(random_model(), tokenizer, tmp_path)
    ours, _ = load_base(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert float((ours(TOKENS) - theirs(TOKENS).logits).abs().max().detach()) < 1e-4


def test_shape_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        ModelConfig(n_heads=7)


@pytest.mark.parametrize("prefix", [None, torch.tensor([[4, 8, 15]]), torch.randint(1, 50, (1, 9))])
def test_packed_rows_have_the_states_and_gradients_of_padded_ones(model, prefix):
    rows = TOKENS.clone()
    rows[1, 4:] = PAD_ID
    rows[0, 2] = PAD_ID  # inside a row it is a token like others
    learnt = (torch.rand(rows.shape) < 0.5) & (rows != PAD_ID)
    weight = model.model.layers[0].self_attn.k_proj.weight
    states = trainer.packed_states(model, rows, prefix, learnt)
    with fast.plain():
        expected = trainer.learnt_states(model, rows, prefix, learnt)
    torch.testing.assert_close(states, expected)
    gradients = [torch.autograd.grad(s.square().sum(), weight)[0] for s in (states, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=3e-5)


def test_written_out_gradients_are_those_of_the_composed_operations():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 150, 8), torch.rand(8)
    table, labels = torch.randn(11, 8), torch.randint(11, (300,))
    pairs = (
        (lambda x, w: RMSNormalize.apply(x, w, 1e-5).tanh().sum(), lambda x, w: F.rms_norm(x, (8,), w, 1e-5).tanh().sum(), weight),
        (
            lambda x, w: LinearCrossEntropy.apply(x.flatten(0, 1), w, labels) / 7,
            lambda x, w: F.cross_entropy(x.flatten(0, 1) @ w.T, labels, reduction="sum") / 7, table,
        ),
    )  # fmt: skip
    for ours, composed, second in pairs:
        results = []
        for function in (ours, composed):
            inputs = [x.clone().requires_grad_(), second.clone().requires_grad_()]
            value = function(*inputs)
            results.append([value, *torch.autograd.grad(value, inputs)])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_the_written_out_gradient_of_lora_is_that_of_its_formula():
    torch.manual_seed(0)
    weight = torch.randn(6, 4, dtype=torch.double)
    given = [
        torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((2, 3, 4), (2, 4), (6, 2))
    ]

    def product(x, a, b):
        return LoraProduct.apply(x, weight, a, b, 0.5)

    torch.testing.assert_close(product(*given), given[0] @ (weight + 0.5 * given[2] @ given[1]).T)
    assert torch.autograd.gradcheck(product, given)
    with torch.autocast("cpu", torch.bfloat16):
        low = LoraProduct.apply(given[0].float(), weight.bfloat16(), given[1].float(), given[2].float(), 0.5)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), product(*given), rtol=0.05, atol=0.05)
    # through the conversions
    assert all(gradient.dtype == torch.double for gradient in torch.autograd.grad(low.sum(), given))


def test_the_loss_of_an_answer_that_the_model_rules_out_stays_finite():
    x = torch.tensor([[1.0]], requires_grad=True)
    loss = LinearCrossEntropy.apply(x, torch.tensor([[500.0], [-500.0]]), torch.tensor([1]))
    assert 80 < loss < 1000
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], torch.tensor([[1000.0]]))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_norm_and_rotation_are_exact_but_for_rounding_in_either_precision(dtype, within):
    torch.manual_seed(0)
    x, weight, along = torch.randn(3, 2, 5, 16), torch.rand(16), torch.randn(3, 2, 5, 16)
    cos, sin = (function(torch.rand(3, 1, 5, 8) * 9) for function in (torch.cos, torch.sin))

    def turned(x):
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    for ours, plain in (
        (lambda x: RMSNormalize.apply(x, weight, 1e-5), lambda x: F.rms_norm(x, (16,), weight, 1e-5)),
        (lambda x: Rotate.apply(x, cos, sin), turned),
    ):
        results = []
        for function, kind in ((ours, dtype), (plain, torch.float32)):
            given = x.to(dtype).to(kind).requires_grad_()
            value = function(given)
            assert value.dtype == kind
            results.append((value.float(), torch.autograd.grad(value, given, along.to(kind))[0].float()))
        torch.testing.assert_close(*results, rtol=within, atol=within)


def test_plain_formulas_and_fast_ones_give_the_same_loss_and_gradients(model, monkeypatch):
    monkeypatch.setattr(trainer, "autocast", lambda device: contextlib.nullcontext())
    add_lora(model, LoraConfig(rank=3, alpha=6))
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(std=0.1)
    batch = Batch(TOKENS[:, :-1], TOKENS[:, 1:], torch.tensor([[4, 8, 15]]))
    found = []
    for way in (contextlib.nullcontext, fast.plain):
        model.zero_grad()
        with way():
            loss, _ = trainer.batch_loss(model, batch)
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    assert found[0][1].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
