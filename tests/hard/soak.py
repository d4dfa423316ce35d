"""Train for an hour with everything switched on, and look whether memory grows: python tests/hard/soak.py [MINUTES].

Checkpoints, validation, samples, TensorBoard, two workers that load data; then sampling, again and again. The row of
the table has the steps as cases; it fails if the resident memory of the last tenth exceeds that of the second tenth
by more than 5 % (the history of losses grows by 100 bytes a step).
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dit_nb import Diffusion, DiT, DiTConfig, SamplingConfig, TrainConfig, sample_images
from dit_nb.callbacks import SampleImages, Validation
from dit_nb.data import digits
from dit_nb.training import Trainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from support_results import write_row  # noqa: E402


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def sample(model: DiT) -> np.ndarray:
    """An image of two samples."""
    images = sample_images(model, SamplingConfig(bins=17, steps="5"), [3, 8], progress=False)
    return (images[0].repeat(3, 1, 1).permute(1, 2, 0).clamp(-1, 1) * 127.5 + 127.5).byte().numpy()


def soak(minutes: float, out: Path) -> tuple[int, list[float]]:
    """Steps done, and the memory by step."""
    memory = []
    config = TrainConfig(
        seconds=60 * minutes,
        batch_size=16,
        lr=1e-4,
        precision="fp32",
        save_every=100,
        keep_every=1000,
        num_workers=2,
        tracker="tensorboard",
        grad_clip=1.0,
        flip=True,
    )
    torch.manual_seed(0)
    model = DiT(DiTConfig(8, 2, 1, 64, 2, 4, num_classes=10, init="scaled"))
    on_step = [
        Validation(200, digits().held_out),
        SampleImages(200, sample),
        lambda *_: memory.append(resident()),
    ]
    trainer = Trainer(model, Diffusion(bins=17), digits().train, config, out, on_step=on_step)
    trainer.fit()
    return trainer.progress.step, memory


if __name__ == "__main__":
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        steps, memory = soak(minutes, Path(folder))
    early, late = (np.mean(part) for part in (memory[steps // 10 : steps // 5], memory[-steps // 10 :]))
    failed = late > 1.05 * early
    note = f"resident memory {early:.0f} MB in the second tenth, {late:.0f} MB in the last"
    print(f"{steps:,} steps, {note}", "FAILED" if failed else "")
    what = "soak: a run with everything on; cases are steps"
    part = f"{minutes:g} of 60 minutes" if minutes < 60 else ""
    write_row(what, steps, int(failed), time.time() - start, note, part)
    sys.exit(int(failed))
