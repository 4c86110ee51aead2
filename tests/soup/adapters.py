"""Adapters as PEFT writes them, made by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "base",
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["q"],
    "init_lora_weights": True,
    "use_dora": False,
    "lora_dropout": 0.1,
    "megatron_core": "megatron.core",
    "inference_mode": True,
}
"""As far as it says more than nothing."""
PREFIX = "base_model.model."


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    """An adapter's file, its configuration beside it. Names without PEFT's prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    file = folder / "adapter_model.safetensors"
    save_file({PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


def factors(module: str, rows: int, columns: int, rank: int = 2, *, seed: int = 0) -> dict[str, Tensor]:
    """A and B of one linear module."""
    random = torch.Generator().manual_seed(seed)
    return {
        f"{module}.lora_A.weight": torch.randn(rank, columns, generator=random),
        f"{module}.lora_B.weight": torch.randn(rows, rank, generator=random),
    }


def product(tensors: Mapping[str, Tensor], module: str) -> Tensor:
    """B times A, in float64."""
    names = [f"{module}.lora_{letter}.weight" for letter in "BA"]
    up, down = (tensors[name].double() for name in names)
    return (up.reshape(len(up), -1) @ down.reshape(len(down), -1)).reshape(len(up), *down.shape[1:])
