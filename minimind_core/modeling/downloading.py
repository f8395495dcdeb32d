"""Official MiniMind weights from the two hubs, by the hubs' own client libraries."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from minimind_core.errors import WorkbookError
from minimind_core.modeling.checkpoint import load_base

REPOSITORIES = {
    "minimind2-small": {"modelscope": "gongjy/MiniMind2-Small", "huggingface": "jingyaogong/MiniMind2-Small"},
    "minimind2": {"modelscope": "gongjy/MiniMind2", "huggingface": "jingyaogong/MiniMind2"},
    "minimind-3": {"modelscope": "gongjy/minimind-3", "huggingface": "jingyaogong/minimind-3"},
}
PARAMETERS = {"minimind2-small": 25_829_888, "minimind2": 104_030_976, "minimind-3": 63_912_192}
CLIENTS = {"modelscope": "modelscope", "huggingface": "huggingface_hub"}
FILES = ["*.json", "*.safetensors", "*.bin"]


def download(name: str, source: str, folder: Path, endpoint: str | None = None) -> Path:
    """Fetch a model into `folder`, load it and compare its size.

    Every failure says what to do without a network.

    `endpoint` replaces the hub's address, for a mirror.
    """
    try:
        client = import_module(CLIENTS[source])
    except ModuleNotFoundError as error:
        raise WorkbookError(
            f"下载需要 {CLIENTS[source]} 这个包。请先运行 pip install {CLIENTS[source]}。"
        ) from error
    repository = REPOSITORIES[name][source]
    try:
        client.snapshot_download(repository, local_dir=str(folder), allow_patterns=FILES, endpoint=endpoint)
    except Exception as error:
        raise WorkbookError(
            f"从 {source} 下载 {repository} 失败（{type(error).__name__}）。"
            "没有网络时请继续使用自带的 weights/base；"
            f"或在能上网的电脑上下载后放到 {folder}。也可以加 --from "
            f"{'huggingface' if source == 'modelscope' else 'modelscope'} 再试。"
        ) from error
    model, _ = load_base(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != PARAMETERS[name]:
        raise WorkbookError(
            f"{folder}: 有 {count:,} 个参数，{name} 应有 {PARAMETERS[name]:,} "
            "个。下载不完整或版本不对，请删去后重新下载。"
        )
    return folder
