import pytest
import torch
from conftest import random_model

from minimind_core.config import LINEAR_NAMES, STOCK_LORA, LoraConfig, ModelConfig
from minimind_core.errors import WorkbookError
from minimind_core.modeling import lora
from minimind_core.modeling.minimind import Memory, MiniMind

TOKENS = torch.tensor([[5, 9, 200, 31, 7, 8]])
SMALL = LoraConfig(rank=3, alpha=6)


def trained(seed: int = 1):
    """A model whose adapter is not zero."""
    model = lora.add_lora(random_model(), SMALL)
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in lora.lora_state(model).values():
            tensor.normal_(std=0.1)
    return model


def test_a_fresh_adapter_changes_nothing():
    assert torch.equal(lora.add_lora(random_model(), SMALL)(TOKENS), random_model()(TOKENS))


def test_only_the_adapter_gets_gradients():
    model = trained()
    model(TOKENS).sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(lora.lora_state(model))


def test_output_is_the_formula():
    layer = lora.LoraLinear(torch.nn.Linear(4, 5, bias=False), LoraConfig(rank=2, alpha=3))
    torch.nn.init.normal_(layer.lora_B)
    x = torch.randn(4)
    expected = layer.base.weight @ x + 3 / 2 * layer.lora_B @ (layer.lora_A @ x)
    torch.testing.assert_close(layer(x), expected)


def test_merging_keeps_the_outputs_and_merging_twice_changes_nothing():
    model = trained()
    before = model(TOKENS)
    torch.testing.assert_close(lora.merge_lora(model)(TOKENS), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(lora.merge_lora(model)(TOKENS), model(TOKENS))
    assert not lora.lora_state(model)


@pytest.mark.parametrize(
    ("config", "expected"), [(STOCK_LORA, 131_072), (LoraConfig(rank=2, alpha=2), 2 * 72_704)]
)
def test_parameter_count(config, expected):
    assert lora.lora_size(config, ModelConfig()) == expected


def test_layers_below_the_first_get_no_adapter_and_no_gradient():
    model = lora.add_lora(random_model(), LoraConfig(rank=2, first_layer=1))
    assert {name.split(".")[2] for name in lora.lora_state(model)} == {"1"}
    x = model.model.embed_tokens(TOKENS)
    cos, sin = (table[: TOKENS.shape[1], None] for table in (model.rotary_cos, model.rotary_sin))
    assert not model.model.layers[0](x, (cos, sin), None, Memory()).requires_grad
    assert model(TOKENS).requires_grad
    with pytest.raises(WorkbookError, match="first_layer 是 2"):
        lora.add_lora(random_model(), LoraConfig(rank=2, first_layer=2))


def test_unknown_target_is_refused_by_name():
    with pytest.raises(WorkbookError, match=r"query.*可用的是.*q_proj"):
        lora.add_lora(random_model(), LoraConfig(target_modules=("query",)))


def test_adapter_survives_a_round_trip(tmp_path):
    model = trained()
    lora.save_adapter(tmp_path / "adapter.safetensors", model, SMALL)
    again = lora.load_adapter(tmp_path / "adapter.safetensors", random_model())
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_adapter_of_another_shape_is_refused(tmp_path):
    lora.save_adapter(tmp_path / "adapter.safetensors", trained(), SMALL)
    other = MiniMind(ModelConfig(hidden_size=64, n_layers=2, n_heads=4, n_kv_heads=2, intermediate_size=48))
    with pytest.raises(WorkbookError, match="结构不符"):
        lora.load_adapter(tmp_path / "adapter.safetensors", other)


def test_default_targets_are_all_seven_linears():
    assert set(LoraConfig().target_modules) == set(LINEAR_NAMES)


def test_sizes_are_the_norms_of_the_merged_update(tmp_path):
    model, config = random_model(), LoraConfig(rank=3, alpha=5)
    lora.add_lora(model, config)
    with torch.no_grad():
        for tensor in lora.lora_state(model).values():
            tensor.normal_()
    lora.save_adapter(tmp_path / "adapter.safetensors", model, config)
    sizes = lora.update_sizes(tmp_path / "adapter.safetensors")
    modules = {name: module for name, module in model.named_modules() if isinstance(module, lora.LoraLinear)}
    assert sizes == pytest.approx(
        {name: float(module.delta().detach().norm()) for name, module in modules.items()}
    )
