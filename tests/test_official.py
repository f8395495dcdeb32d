"""MiniMind's own code reads what this project writes.

The code is not part of this project: set MINIMIND_OFFICIAL to one checkout of github.com/jingyaogong/minimind,
or several with a colon between. 2025-04-30 (561979c) and 2026-08-21 (d65ef2c) were tried.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import PROJECT

from minimind_core.config import LoraConfig
from minimind_core.modeling import exporting
from minimind_core.modeling.checkpoint import load_base
from minimind_core.modeling.lora import add_lora, lora_state
from minimind_core.modeling.minimind import MiniMind

CHECKOUTS = [Path(path) for path in os.environ.get("MINIMIND_OFFICIAL", "").split(os.pathsep) if path]
pytestmark = pytest.mark.skipif(not CHECKOUTS, reason="MINIMIND_OFFICIAL names no checkout of MiniMind")
SQUARE = LoraConfig(rank=16, alpha=32, target_modules=("q_proj", "o_proj"))  # all that its LoRA knows
TOKENS = torch.randint(3, 6000, (2, 40), generator=torch.Generator().manual_seed(1))
# run where `model` is MiniMind's package; NAME is a LoRA file or empty
THEIRS = """
import json, sys, torch
from model.model_lora import apply_lora, load_lora
from model.model_minimind import MiniMindConfig, MiniMindForCausalLM
shape, base, lora, tokens, out = sys.argv[1:]
model = MiniMindForCausalLM(MiniMindConfig(**json.loads(shape))).eval()
left = model.load_state_dict(torch.load(base, weights_only=True), strict=False)
assert not left.missing_keys and not left.unexpected_keys, left
if lora:
    apply_lora(model, rank=16)
    load_lora(model, lora)
torch.save(model(torch.load(tokens, weights_only=True)).logits.detach().float(), out)
"""


def model_for(checkout):
    """The embedded base; newer code normalizes queries and keys, for which there is a random network."""
    model, tokenizer = load_base(PROJECT / "weights" / "base")
    if "q_norm" in (checkout / "model" / "model_minimind.py").read_text(encoding="utf-8"):
        config = replace(model.config, qk_norm=True, norm_eps=1e-6, n_kv_heads=4)
        torch.manual_seed(0)
        model = MiniMind(config)
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.05)
    for parameter in model.parameters():  # what half precision keeps
        parameter.data = parameter.data.half().float()
    return model.eval(), tokenizer


@pytest.mark.parametrize("checkout", CHECKOUTS, ids=str)
@pytest.mark.parametrize("adapted", [False, True])
@torch.no_grad()
def test_minimind_computes_the_same_logits(tmp_path, checkout, adapted):
    model, tokenizer = model_for(checkout)
    exporting.export("pth", exporting.Source(model, tokenizer, None, tmp_path), tmp_path)
    if adapted:
        add_lora(model, SQUARE)
        for tensor in lora_state(model).values():
            torch.nn.init.normal_(tensor, std=0.02)
        exporting.write_lora_pth(tmp_path / "lora.pth", lora_state(model), SQUARE)
    torch.save(TOKENS, tmp_path / "tokens.pt")
    size = model.config.hidden_size
    shape = {
        "hidden_size": size,
        "num_hidden_layers": model.config.n_layers,
        "num_key_value_heads": model.config.n_kv_heads,
        "intermediate_size": model.config.intermediate_size,
        "rms_norm_eps": model.config.norm_eps,
    }
    lora = tmp_path / "lora.pth" if adapted else ""
    files = [tmp_path / f"merged_{size}.pth", lora, tmp_path / "tokens.pt", tmp_path / "out"]
    command = [sys.executable, "-c", THEIRS, json.dumps(shape), *map(str, files)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(checkout.resolve())}, check=True)
    theirs = torch.load(tmp_path / "out", weights_only=True)
    ours = model(TOKENS)
    assert ours.std() > 0.5
    assert (ours - theirs).abs().max() < 4e-4
