import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import PROJECT, TINY, load_script, random_model
from tokenizers import Tokenizer

from minimind_core.cli import main
from minimind_core.config import LoraConfig, ModelConfig
from minimind_core.conversations.mixing import write_dataset
from minimind_core.errors import WorkbookError
from minimind_core.inference.decoding import Decoding
from minimind_core.inference.generation import Answer, generate
from minimind_core.modeling import downloading, exporting, pth
from minimind_core.modeling.checkpoint import load_base, save_base
from minimind_core.modeling.lora import add_lora, load_adapter, lora_state, merge_lora
from minimind_core.modeling.minimind import MiniMind
from minimind_core.modeling.tokenizer import (
    DEFAULT_SYSTEM,
    END,
    END_ID,
    PAD_ID,
    START,
    encode_chat,
    encode_prompt,
)
from minimind_core.training.runs import prepare_run

WIDE = ModelConfig(
    hidden_size=64, n_layers=2, n_heads=8, n_kv_heads=2, intermediate_size=48, max_positions=128
)
NORMED = dataclasses.replace(WIDE, n_kv_heads=4, qk_norm=True, norm_eps=1e-6)
TOKENS = torch.tensor([[5, 9, 200, 31, 7, 8, 4000]])
LORA = LoraConfig(rank=3, alpha=12)
UPPER = LoraConfig(rank=3, alpha=12, first_layer=1)
MESSAGES = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "你好呀"},
    {"role": "user", "content": "再见"},
]


@torch.no_grad()
def largest_difference(first, second):
    """Largest absolute difference of two models' logits on a fixed random row of 32 tokens."""
    tokens = torch.randint(3, first.config.vocab_size, (1, 32), generator=torch.Generator().manual_seed(0))
    return float((first(tokens) - second(tokens)).abs().max())


@pytest.fixture
def thinking(tokenizer):
    """The shipped tokenizer with minimind-3's two extra tokens in the place of the last two."""
    values = json.loads(tokenizer.to_str())
    vocabulary = values["model"]["vocab"]
    last = sorted(vocabulary, key=vocabulary.get)[-2:]
    values["model"]["merges"] = [m for m in values["model"]["merges"] if "".join(m) not in last]
    for old, new in zip(last, ("<think>", "</think>"), strict=True):
        index = vocabulary.pop(old)
        vocabulary[new] = index
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        values["added_tokens"].append({"id": index, "content": new, **flags})
    return Tokenizer.from_str(json.dumps(values))


def bf16(model: MiniMind) -> MiniMind:
    """The model with the precision that files hold."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def with_adapter(config=WIDE):
    model = add_lora(random_model(config), LORA)
    torch.manual_seed(3)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(std=0.1)
    return model


@pytest.mark.parametrize(("config", "kind"), [(WIDE, "tokenizer"), (NORMED, "thinking")])
def test_transformers_gives_the_same_logits_for_both_generations(tmp_path, request, config, kind):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = request.getfixturevalue(kind)
    model = bf16(random_model(config))
    save_base(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert (theirs(TOKENS).logits - model(TOKENS)).abs().max() <= 1e-4
    again, _ = load_base(tmp_path)
    assert torch.equal(again(TOKENS), model(TOKENS)) and again.config == config
    fast = AutoTokenizer.from_pretrained(tmp_path)
    rendered = fast.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert tokenizer.encode(rendered, add_special_tokens=False).ids == encode_prompt(tokenizer, MESSAGES)


def test_minimind_3_has_its_published_size():
    config = ModelConfig(hidden_size=768, n_kv_heads=4, intermediate_size=2432, norm_eps=1e-6, qk_norm=True)
    with torch.device("meta"):
        assert sum(p.numel() for p in MiniMind(config).parameters()) == downloading.PARAMETERS["minimind-3"]
        big = ModelConfig(hidden_size=768, n_layers=16, intermediate_size=2048)
        assert sum(p.numel() for p in MiniMind(big).parameters()) == downloading.PARAMETERS["minimind2"]


def test_minimind_3_answers_begin_with_an_empty_block_of_thoughts(thinking):
    ids, answer = encode_chat(thinking, MESSAGES[:2])
    text = thinking.decode(ids, skip_special_tokens=False)
    assert (
        text.startswith("<|im_start|>user") and "assistant\n<think>\n\n</think>\n\n你好呀<|im_end|>" in text
    )
    assert (
        thinking.decode([i for i, a in zip(ids, answer, strict=True) if a], skip_special_tokens=False)
        == "你好呀<|im_end|>\n"
    )


def old_layout(model: MiniMind) -> dict[str, torch.Tensor]:
    """What a file of MiniMind before 2025-04-26 held: other names, interleaved rotary pairs, a table of
    rotations.
    """
    back = {new: old for old, new in pth.OLD_NAMES.items()}
    tensors = {
        "tok_embeddings.weight": model.model.embed_tokens.weight,
        "norm.weight": model.model.norm.weight,
        "pos_cis": torch.zeros(4, 2),
    }
    tensors["output.weight"] = model.model.embed_tokens.weight
    for name, tensor in model.state_dict().items():
        if ".layers." in name:
            _, _, index, *module, _ = name.split(".")
            module = ".".join(module)
            if module.endswith(("q_proj", "k_proj")):
                tensor = exporting.interleaved(tensor, tensor.shape[0] // model.config.head_dim)
            tensors[f"layers.{index}.{back[module]}.weight"] = tensor
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("case", ["today", "half", "prefixed", "old"])
def test_every_layout_of_a_pth_file_is_recognised(tmp_path, tokenizer, case):
    model = random_model(WIDE)
    tensors = {"lm_head.weight": model.model.embed_tokens.weight.detach().clone(), **model.state_dict()}
    if case == "half":
        tensors = {k: v.half() for k, v in tensors.items()}
    elif case == "prefixed":
        tensors = {f"module.{k}": v for k, v in tensors.items()}
    elif case == "old":
        tensors = old_layout(model)
    torch.save(tensors, tmp_path / "full_sft_512.pth")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded, _ = load_base(tmp_path / "full_sft_512.pth")
    assert dataclasses.replace(loaded.config, max_positions=WIDE.max_positions) == WIDE
    difference = (loaded(TOKENS) - model(TOKENS)).abs().max()
    assert difference <= (0.05 if case == "half" else 1e-5)


def test_weights_of_the_first_generation_are_refused(tmp_path, tokenizer):
    torch.save(old_layout(random_model(dataclasses.replace(WIDE, n_kv_heads=4))), tmp_path / "x.pth")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WorkbookError, match="V1"):
        load_base(tmp_path / "x.pth")


def test_a_folder_with_a_bin_file_is_read(tmp_path, tokenizer):
    model = random_model(WIDE)
    save_base(model, tokenizer, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert torch.equal(load_base(tmp_path)[0](TOKENS), model(TOKENS))


def test_interleaving_is_undone():
    weight = torch.randn(32, 5)
    assert torch.equal(pth.half_split(exporting.interleaved(weight, 4), 4), weight)


@pytest.mark.parametrize(("change", "problem"), [
    (lambda t: {k: v for k, v in t.items() if "up_proj" not in k}, "不符"), (lambda t: t | {"model.layers.0.mlp.experts.0.w": torch.zeros(1)}, "MoE"),
    (lambda t: t | {"lm_head.weight": torch.zeros_like(t["model.embed_tokens.weight"])}, "输出矩阵"), (lambda t: {"x.lora.A.weight": torch.zeros(1)}, "缺少"),
    (lambda t: {"a": "text"}, "字典"),
])  # fmt: skip
def test_unusable_pth_files_are_refused_with_the_reason(tmp_path, tokenizer, change, problem):
    torch.save(change(dict(random_model(WIDE).state_dict())), tmp_path / "x.pth")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WorkbookError, match=problem):
        load_base(tmp_path / "x.pth")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/never",)

    (tmp_path / "x.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WorkbookError, match="只含张量"):
        pth.load_pth(tmp_path / "x.pth")


def test_the_wrong_tokenizer_is_detected(tmp_path, tokenizer, thinking):
    save_base(random_model(WIDE), tokenizer, tmp_path)
    thinking.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WorkbookError, match="同一代"):
        load_base(tmp_path)
    torch.save(random_model(WIDE).state_dict(), tmp_path / "x.pth")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WorkbookError, match="tokenizer.json"):
        load_base(tmp_path / "x.pth")


def test_a_mixture_of_experts_folder_is_refused(tmp_path, tokenizer):
    save_base(random_model(WIDE), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_moe": True}))
    with pytest.raises(WorkbookError, match="MoE"):
        load_base(tmp_path)


@pytest.mark.parametrize(("config", "own"), [(WIDE, LORA), (NORMED, LORA), (WIDE, UPPER)])
def test_peft_gives_the_same_logits(tmp_path, tokenizer, config, own):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = bf16(random_model(config))
    save_base(model, tokenizer, tmp_path / "base")
    add_lora(model, own)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.normal_(std=0.1)
    exporting.export("peft", exporting.Source(model, tokenizer, own, tmp_path / "base"), tmp_path / "peft")
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32), tmp_path / "peft"
    )
    assert (theirs(TOKENS).logits - model(TOKENS)).abs().max() <= 1e-4


def test_an_adapter_goes_to_minimind_and_back(tmp_path, tokenizer):
    model = with_adapter()
    before = model(TOKENS)
    files = exporting.export("pth", exporting.Source(model, tokenizer, LORA, tmp_path), tmp_path)
    assert [path.name for path in files] == ["lora_64.pth", "merged_64.pth"]
    tensors = torch.load(files[0], weights_only=True)
    assert tensors["model.layers.0.self_attn.q_proj.lora.A.weight"].shape == (3, 64)
    assert tensors["model.layers.1.mlp.down_proj.lora.B.weight"].shape == (64, 3)
    torch.testing.assert_close(
        load_adapter(files[0], random_model(WIDE))(TOKENS), before, rtol=1e-4, atol=1e-4
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert (load_base(files[1])[0](TOKENS) - before).abs().max() < 0.1  # half precision


def test_base_weights_are_no_adapter(tmp_path):
    torch.save(random_model().state_dict(), tmp_path / "x.pth")
    with pytest.raises(WorkbookError, match="不是 MiniMind 的 LoRA"):
        load_adapter(tmp_path / "x.pth", random_model())


@pytest.mark.parametrize(("config", "kind"), [(WIDE, "tokenizer"), (NORMED, "thinking")])
def test_gguf_holds_shape_tokenizer_and_every_parameter(tmp_path, request, config, kind):
    from gguf import GGUFReader

    model = with_adapter(config)
    tokenizer = request.getfixturevalue(kind)
    _, path = exporting.export("gguf", exporting.Source(model, tokenizer, LORA, tmp_path), tmp_path)
    reader = GGUFReader(path)
    stored = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())
    key = stored["blk.1.attn_k.weight"].float()
    key = key if config.qk_norm else pth.half_split(key, config.n_kv_heads)
    torch.testing.assert_close(key, model.model.layers[1].self_attn.k_proj.weight, rtol=1e-3, atol=1e-3)
    fields = reader.fields
    assert len(fields["tokenizer.ggml.tokens"].data) == config.vocab_size
    assert fields["general.architecture"].contents() == ("qwen3" if config.qk_norm else "llama")
    assert "assistant" in fields["tokenizer.chat_template"].contents()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gguf", "gguf-q8"])
def test_transformers_answers_from_a_gguf_as_we_do(tmp_path, form):
    from transformers import AutoModelForCausalLM

    model, tokenizer = load_base(PROJECT / "weights" / "base")
    exporting.export(form, exporting.Source(model, tokenizer, None, tmp_path), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    dialogues = [[{"role": "user", "content": text}] for text in ("你好", "你是谁？", "上班犯困有什么办法")]
    ours = generate(model, tokenizer, [*dialogues, MESSAGES], Decoding(max_new_tokens=16))
    for messages, answer in zip([*dialogues, MESSAGES], ours, strict=True):
        prompt = encode_prompt(tokenizer, messages)
        written = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
        )
        assert tokenizer.decode(written[0, len(prompt) :].tolist()).strip() == answer.text


def test_rows_that_fill_no_block_stay_in_half_precision(tmp_path, tokenizer):
    from gguf import GGUFReader

    model = random_model(WIDE)
    _, path = exporting.export("gguf-q8", exporting.Source(model, tokenizer, None, tmp_path), tmp_path)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"  # 48 columns
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0" and kinds["output_norm.weight"] == "F32"


FAKE_NODE = """#!{python}
import json, sys
request = json.load(sys.stdin)
assert open(request["model"], "rb").read(4) == b"GGUF"
said = ["好" if len(dialogue) == 1 else "不" for dialogue in request["dialogues"]]
print(json.dumps({{"engine": "0", "answers": said}}))
"""


@pytest.mark.skipif(os.name == "nt", reason="the fake is a script with a #! line")
def test_llama_cpp_is_compared_answer_by_answer(workbook, tmp_path, monkeypatch, capsys):
    script = load_script("check_llama_cpp")
    shutil.copy(PROJECT / "dataset" / "questions" / "test.jsonl", workbook.questions("test"))
    node = tmp_path / "node"
    node.write_text(FAKE_NODE.format(python=sys.executable), encoding="utf-8")
    node.chmod(0o755)
    command = [
        "x",
        "--root",
        str(workbook.root),
        "--run",
        "base",
        "--count",
        "20",
        "--modules",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", [*command, "--node", "no_such_command"])
    with pytest.raises(WorkbookError, match="找不到命令 no_such_command"):
        script.main()
    monkeypatch.setattr(sys, "argv", [*command, "--node", str(node)])
    with pytest.raises(WorkbookError, match="npm install"):
        script.main()
    (tmp_path / "node_modules" / "node-llama-cpp").mkdir(parents=True)
    monkeypatch.setattr(
        script, "generate", lambda model, tokenizer, rows, decoding: [Answer("好", 1, True)] * len(rows)
    )
    assert script.main() == 0
    result = json.loads((workbook.root / "report" / "results" / "llama_cpp.json").read_text(encoding="utf-8"))
    assert (result["dialogues"], result["of_two_turns"], result["formats"]["F16"]["equal"]) == (22, 2, 20)
    assert [len(row["dialogue"]) for row in result["formats"]["Q8_0"]["differing"]] == [3, 3]


def test_merged_export_equals_the_adapter(tmp_path, tokenizer):
    model = with_adapter()
    before = model(TOKENS)
    exporting.export("hf", exporting.Source(model, tokenizer, LORA, tmp_path), tmp_path)
    merged, _ = load_base(tmp_path)
    assert (merged(TOKENS) - before).abs().max() < 0.3 and largest_difference(
        merged, merge_lora(model)
    ) < 0.3  # bfloat16


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_download_without_network_says_what_to_do(tmp_path, source):
    with pytest.raises(WorkbookError, match="weights/base"):
        downloading.download("minimind2-small", source, tmp_path, endpoint="http://127.0.0.1:9")


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(downloading.CLIENTS, "modelscope", "no_such_client")
    with pytest.raises(WorkbookError, match="pip install no_such_client"):
        downloading.download("minimind-3", "modelscope", tmp_path)


@pytest.fixture
def hub(tmp_path, tokenizer):
    """A loopback server that speaks as much of the hub's protocol as a snapshot download needs."""
    folder = tmp_path / "served"
    save_base(random_model(TINY), tokenizer, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.reply(b"")

        def do_GET(self):
            self.reply(None)

        def reply(self, forced):
            name = self.path.split("?")[0].rsplit("/", 1)[-1]
            if "FilePath=" in self.path:  # ModelScope's way, the others are Hugging Face's
                name = self.path.rsplit("FilePath=", 1)[1].split("&")[0]
                body = files.get(name, b"")
            elif "/repo/files" in self.path:
                listed = [
                    {
                        "Name": n,
                        "Path": n,
                        "Type": "blob",
                        "Size": len(b),
                        "Sha256": hashlib.sha256(b).hexdigest(),
                    }
                    for n, b in files.items()
                ]
                body = json.dumps({"Code": 200, "Success": True, "Data": {"Files": listed}}).encode()
            elif "/tree/" in self.path:
                body = json.dumps(
                    [{"type": "file", "path": n, "size": len(b), "oid": "b" * 40} for n, b in files.items()]
                ).encode()
            elif "/api/models/" in self.path:
                body = json.dumps(
                    {
                        "id": "x/y",
                        "modelId": "x/y",
                        "sha": "a" * 40,
                        "siblings": [{"rfilename": n} for n in files],
                    }
                ).encode()
            else:
                body = files.get(name, b"")
            self.send_response(200 if body else 404)
            for header, value in (
                ("ETag", f'"{len(body)}{name}"'),
                ("X-Repo-Commit", "a" * 40),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body if forced is None else forced)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_download_is_loaded_and_its_size_checked(tmp_path, hub, monkeypatch, source):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    size = sum(p.numel() for p in MiniMind(TINY).parameters())
    monkeypatch.setitem(downloading.PARAMETERS, "minimind2-small", size)
    folder = downloading.download("minimind2-small", source, tmp_path / "got", endpoint=hub)
    assert load_base(folder)[0].config.hidden_size == TINY.hidden_size
    monkeypatch.setitem(downloading.PARAMETERS, "minimind2-small", size + 1)
    with pytest.raises(WorkbookError, match="下载不完整"):
        downloading.download("minimind2-small", source, tmp_path / "again", endpoint=hub)


def test_a_new_export_format_is_one_entry(tmp_path, tokenizer, monkeypatch):
    def write(source, folder):
        (folder / "shape.txt").write_text(str(source.model.config.hidden_size))

    monkeypatch.setitem(exporting.FORMATS, "shape", write)
    source = exporting.Source(with_adapter(), tokenizer, LORA, tmp_path)
    assert [path.read_text() for path in exporting.export("shape", source, tmp_path / "out")] == ["64"]
    with pytest.raises(WorkbookError, match="可用的是 hf、peft、pth、gguf、gguf-q8、shape"):
        exporting.export("onnx", source, tmp_path)


@pytest.fixture
def trained(workbook):
    """A project with a trained run."""
    write_dataset(workbook)
    list(prepare_run(workbook, "main", "smoke").train())
    return workbook


@pytest.mark.slow
@pytest.mark.parametrize("form", exporting.FORMATS)
def test_an_export_is_the_same_twice_and_leaves_the_base_alone(trained, form):
    base = {path: path.read_bytes() for path in (trained.base).iterdir()}
    arguments = ["--root", str(trained.root), "export", "--format", form, "--out"]
    folders = [trained.root / name for name in ("once", "again")]
    for folder in folders:
        assert main([*arguments, str(folder)]) == 0
    written = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert written[0] and written[0] == written[1]
    assert {path: path.read_bytes() for path in trained.base.iterdir()} == base


@pytest.mark.parametrize("form", exporting.FORMATS)
def test_the_base_alone_is_exported_where_that_means_something(workbook, capsys, form):
    folder = workbook.root / "out"
    status = main(
        ["--root", str(workbook.root), "export", "--run", "base", "--format", form, "--out", str(folder)]
    )
    if form == "peft":
        assert status == 2 and "没有适配器" in capsys.readouterr().err
        return
    assert status == 0 and any(folder.iterdir())
    if form == "hf":
        again, _ = load_base(folder)
        assert largest_difference(load_base(workbook.base)[0], again) < 1e-5


def test_the_modelfile_has_the_models_own_template(tokenizer):
    text = exporting.modelfile(tokenizer, TINY)
    for part in (START, END, DEFAULT_SYSTEM, "FROM ./model.gguf", "repeat_penalty 1.0", "temperature 0"):
        assert part in text
