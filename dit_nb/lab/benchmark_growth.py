"""Growth of time and memory with the size of a model, and loss curves in several precisions."""

import os
from datetime import date

import torch
from tqdm.auto import tqdm

from dit_nb.config import DiTConfig, TrainConfig
from dit_nb.cost import cost
from dit_nb.data import digits
from dit_nb.lab.benchmark import _device_name, _receive, _request, _start
from dit_nb.lab.benchmark_jobs import _SMALL, _matmul_flop
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.training import Trainer
from dit_nb.utils import _bar_visible

__all__ = []

_BASE = dict(
    input_size=16, patch_size=2, in_channels=4, hidden_size=192, depth=6, num_heads=6, num_classes=10
)


_GROWTH = {  # axis -> settings; all axes share 64 tokens, width 192, 6 blocks and 16 images
    "tokens": [dict(input_size=s) for s in (8, 16, 24, 32)],
    "width": [dict(hidden_size=d) for d in (96, 192, 384, 576)],
    "depth": [dict(depth=d) for d in (3, 6, 12, 24)],
    "batch": [dict(batch=n) for n in (4, 8, 16, 32, 64)],
}


def _benchmark_growth(device: str = "cpu", precision: str = "fp32", progress: bool = True) -> list[dict]:
    """Time and memory of a training step against tokens, width, depth and batch size, one axis at a time.

    Args:
        device: cpu or cuda
        precision: fp32 or bf16
        progress: show a progress bar
    """
    rows, runs = [], [(axis, change) for axis, changes in _GROWTH.items() for change in changes]
    for axis, change in tqdm(runs, desc="growth", disable=not _bar_visible(progress)):
        settings = {**_BASE, **change}
        n = settings.pop("batch", 16)
        config = DiTConfig(**settings)
        pipe, process = _start(f"ours {precision}", "train", config, n, device)
        try:
            _receive(pipe, process, axis)
            times = _request(pipe, process, axis, 1.5)
            _, memory = _request(pipe, process, axis, 0)
        finally:
            process.kill()
        tokens = (config.input_size // config.patch_size) ** 2
        at = {"tokens": tokens, "width": config.hidden_size, "depth": config.depth, "batch": n}
        known = {"date": date.today().isoformat(), "axis": axis, "at": at[axis]}
        known |= {"ms": 1000 * min(times), "peak_gb": memory}
        known |= {"gflop": _matmul_flop(config, n, "train") / 1e9, "parameters": cost(config).total_params}
        rows.append({**known, "precision": precision, "device": _device_name(device)})
    return rows


def _loss_curves(
    device: str = "cpu",
    steps: int = 1000,
    width: int = 384,
    depth: int = 12,
    progress: bool = True,
    compiled: bool = True,
) -> list[dict]:
    """Losses of one training run on the digits with the same seed, in float32, bfloat16, and bfloat16 compiled.

    Args:
        device: cpu or cuda
        steps: number of updates
        width: hidden size; default: DiT-S
        depth: number of blocks; default: DiT-S
        progress: show a progress bar
        compiled: run the third, compiled, too
    """
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # even if there is a GPU
    config, rows = DiTConfig(**_SMALL | dict(patch_size=1, hidden_size=width, depth=depth, num_heads=6)), []
    runs = [("fp32", False), ("bf16", False), ("bf16", True)][: 3 if compiled else 2]
    for precision, with_compiler in tqdm(runs, desc="curves", disable=not _bar_visible(progress)):
        torch.manual_seed(0)
        settings = TrainConfig(steps=steps, batch_size=128, precision=precision, compile=with_compiler)
        trainer = Trainer(DiT(config), Diffusion(bins=17), digits().train, settings)
        batches, losses = trainer.batches(), []
        for _ in range(steps):
            losses.append(trainer.step(next(batches))["mse"].item())
        known = {"width": width, "depth": depth, "batch": 128, "seed": 0, "date": date.today().isoformat()}
        known |= {"device": _device_name(device), "torch": torch.__version__}
        rows.append(
            {"precision": precision, "compiled": with_compiler, "mse": [round(x, 6) for x in losses], **known}
        )
    return rows
