"""Distill the bundled emoji model into the bundled few-step model, which samples in one, two or four network calls.

    python tools/train_few_step_emoji.py --out runs/few-step-emoji --seconds 2700
    python tools/train_few_step_emoji.py --out runs/few-step-emoji --bundle "on one thread of a laptop"

The teacher is the bundled diffusion model with guidance, read as a velocity (lesson 30). The student starts with its
blocks, and learns the average of the guided velocity (lesson 35). A run that was stopped goes on where it was saved.
The second call puts the trained model into the package, measures it (`dit_nb.lab.few_step_study`), and writes its card.
"""

import argparse
import csv
import json
import math
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from dit_nb.config import SamplingConfig
from dit_nb.data import emoji
from dit_nb.ema import EMA
from dit_nb.guidance import Guided
from dit_nb.hub import _write_float16
from dit_nb.lab import few_step_study
from dit_nb.lab.sweep import mean_interval
from dit_nb.pretrained import emoji_model, make_diffusion
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.flow_adapters import NoiseAsVelocity
from dit_nb.since.meanflow import MeanFlowDiT, adaptive_loss, mean_flow_target, sample_time_pairs
from dit_nb.speed import fast_cpu

FOLDER = Path(__file__).parents[1] / "dit_nb" / "models" / "few_step_emoji"
BATCH, LR, EQUAL, DENSITY, SCALE, SEED = 32, 6e-4, 0.25, (0.0, 1.5), 2.0, 0
CARD = """---
library_name: dit_nb
license: apache-2.0
tags:
- diffusion
- dit
---
# A MeanFlow DiT that samples emoji in one to four network calls

32x32 color pictures of 6 classes, smileys, animals and food in two styles: patch 4, width 192, 6 adaLN-Zero blocks, 6 heads, conditioned on t, t - r and the label; {weights:.2f} million weights, averaged (EMA), in float16 (the fixed positions in float32). It predicts the average velocity between two flow times (MeanFlow, arXiv 2505.13447; lesson 35).

Distilled from the bundled class model of emoji, whose velocity with guidance {scale} it averages, on the {images} training emoji of three categories of `dit_nb.data.emoji()` (Noto Emoji, Apache-2.0; Fluent Emoji, MIT) and the mirror images of those without a direction, by `tools/train_few_step_emoji.py`: {updates} updates of {batch} images in {minutes:.0f} minutes {machine}, torch {torch}, bfloat16.

{samples} samples of each of {seeds} seeds, mean and 95 % interval over the seeds (`python -m dit_nb.lab.few_step_study`); "Euler" is the teacher, with two network calls a step for its guidance:

{table}

    from dit_nb.pretrained import few_step_emoji_model, sample_images
    model, sampling = few_step_emoji_model()
    images = sample_images(model, sampling, ["smileys-3d", "food-flat"])
"""


class Teacher:
    """The guided velocity of the bundled diffusion model, with clipped images, as its sampler has them."""

    def __init__(self, class_names: tuple[str, ...]):
        model, sampling = emoji_model(device="cpu")
        self.labels = torch.tensor([sampling.class_names.index(name) for name in class_names])
        self.model, self.channels = model.requires_grad_(False), model.config.in_channels
        guided = Guided(self.predict, SCALE, null_class=model.null_class)
        self.velocity = NoiseAsVelocity(guided, make_diffusion(sampling))

    def predict(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(x, t, y).float()

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        v, time = self.velocity(x, 1000 * t, self.labels[y]), t.view(-1, 1, 1, 1)
        x0 = (x - time * v).clamp(-1, 1)
        return torch.where(time > 0.1, (x - x0) / time.clamp(min=0.1), v)


def make_student(teacher: Teacher) -> MeanFlowDiT:
    """A MeanFlow model with the teacher's blocks, labels and last layer, whose span t - r means nothing yet."""
    old = teacher.model
    sizes = {"learn_sigma": False, "class_dropout_prob": 0.0, "num_classes": len(teacher.labels)}
    model = MeanFlowDiT(replace(old.config, **sizes))
    other = ("t_embedder", "final_layer.linear", "y_embedder")
    model.load_state_dict(
        {k: v for k, v in old.state_dict().items() if not k.startswith(other)}, strict=False
    )
    model.y_embedder.embedding_table.weight.data.copy_(old.y_embedder.embedding_table.weight[teacher.labels])
    channels = torch.arange(old.final_layer.linear.out_features).view(-1, 2 * teacher.channels)
    rows = channels[:, : teacher.channels].flatten()  # those of the noise, not of the variance
    for name in ("weight", "bias"):
        getattr(model.final_layer.linear, name).data.copy_(getattr(old.final_layer.linear, name)[rows])
        nn.init.zeros_(getattr(model.span_embedder.mlp[-1], name))
    fit_times(model, teacher)
    return model


def fit_times(model: MeanFlowDiT, teacher: Teacher, updates: int = 1500) -> None:
    """Fit the embedding of flow times to the teacher's embedding of the timesteps of the same log SNR."""
    t, known = torch.linspace(0, 1, 513), teacher.velocity
    log_snr = (-2 * t.double().logit()).clamp(known._log_snr[-1], known._log_snr[0])
    with torch.no_grad():
        goal = teacher.model.t_embedder(known._timestep(log_snr))
    optimizer = torch.optim.Adam(model.t_embedder.parameters(), 3e-3)
    for step in range(updates):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / updates) + 1e-5
        loss = (model.t_embedder(model.time_scale * t) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Losses:
    """MeanFlow's loss of each image, with a teacher. Pairs with r = t need no derivative: the target is the velocity."""

    def __init__(self, model: MeanFlowDiT, teacher: Teacher):
        self.model, self.teacher = model, teacher
        self.average = torch.compile(self._average)

    def _average(self, x: Tensor, t: Tensor, r: Tensor, y: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        return mean_flow_target(lambda x, t, r: self.model(x, t, r, y), x, t, r, velocity)

    def __call__(self, x0: Tensor, y: Tensor, t: Tensor, r: Tensor, noise: Tensor) -> Tensor:
        equal = round(EQUAL * len(x0))
        x_t = RectifiedFlow().interpolate(x0, t, noise)
        v = self.teacher(x_t, t, y)
        with torch.autocast("cpu", torch.bfloat16):
            same = self.model(x_t[:equal], t[:equal], t[:equal], y[:equal])
            u, target = self.average(x_t[equal:], t[equal:], r[equal:], y[equal:], v[equal:])
        pairs = ((same, v[:equal]), (u, target))
        return torch.cat([adaptive_loss(prediction.float(), goal.float()) for prediction, goal in pairs])


class Run:
    """Model, average, optimizer and random numbers of a run, and the file that keeps them."""

    def __init__(self, model: MeanFlowDiT, path: Path):
        self.model, self.ema, self.path = model.train(), EMA(model, 0.999), path
        self.optimizer = torch.optim.AdamW(model.parameters(), LR, betas=(0.9, 0.99), weight_decay=0.0)
        self.generator, self.step, self.used = torch.Generator().manual_seed(SEED + 1), 0, 0.0
        if path.exists():
            self.load(torch.load(path))

    def save(self) -> None:
        parts = {"model": self.model, "ema": self.ema.model, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": self.step, "used": self.used, "generator": self.generator.get_state()}
        torch.save(state, self.path)

    def load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step, self.used, self.ema.updates = state["step"], state["used"], state["step"]

    def update(self, losses: Losses, data, fraction: float) -> float:
        """One update; `fraction` is the part of the training time that is over."""
        rows = torch.randint(0, len(data), (BATCH,), generator=self.generator).tolist()
        t, r = sample_time_pairs(BATCH, self.generator, DENSITY, EQUAL)
        x0, y = data.get_batch(rows)
        loss = losses(x0, y, t, r, torch.randn(x0.shape, generator=self.generator)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
        self.optimizer.param_groups[0]["lr"] = LR * min(1.0, (self.step + 1) / 100) * (0.01 + 0.99 * cosine)
        self.optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        return float(loss.detach())


def train(out: Path, seconds: float) -> None:
    torch.manual_seed(SEED)
    out.mkdir(parents=True, exist_ok=True)
    data = emoji(few_step_study._CATEGORIES).train.with_mirror_images()
    teacher = Teacher(data.class_names)
    run = Run(make_student(teacher), out / "state.pt")
    losses, begin, before = Losses(run.model, teacher), time.monotonic(), run.used
    while run.used < seconds:
        loss = run.update(losses, data, run.used / seconds)
        run.used = before + time.monotonic() - begin
        if run.step % 50 == 0:
            print(f"update {run.step}, {run.used:.0f} s: loss {loss:.3f}", flush=True)
        if run.step % 500 == 0 or run.used >= seconds:
            run.save()


def bundle(out: Path, machine: str) -> None:
    """Write the averaged weights, the settings and the card into the package."""
    state = torch.load(out / "state.pt")
    data = emoji(few_step_study._CATEGORIES).train
    model = make_student(Teacher(data.class_names))
    model.load_state_dict(state["ema"])
    model.save_pretrained(FOLDER)  # creates the folder, and config.json
    _write_float16(model.state_dict(), FOLDER / "model.safetensors")
    sampling = SamplingConfig(objective="mean_flow", steps="4", class_names=data.class_names)
    (FOLDER / "sampling.json").write_text(json.dumps(asdict(sampling), indent=1) + "\n", encoding="utf-8")
    few_step_study.main()
    facts = {"weights": sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, "scale": SCALE}
    facts |= {"images": len(data), "updates": state["step"], "batch": BATCH, "minutes": state["used"] / 60}
    facts |= {"samples": few_step_study._IMAGES, "seeds": few_step_study._SEEDS, "machine": machine}
    card = CARD.format(torch=version("torch").split("+")[0], table=table(), **facts)
    (FOLDER / "README.md").write_text(card, encoding="utf-8")
    print(card)


def table() -> str:
    """The recorded metrics, as a Markdown table."""
    with few_step_study.RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    names = {"rms_to_50": "RMS to Euler 50", "frechet": "Fréchet distance"}
    names |= {
        "category_accuracy": "category recognized",
        "nearest_train": "RMS to the nearest training emoji",
    }
    lines = [f"| | steps | {' | '.join(names.values())} |", "|---" * (2 + len(names)) + "|"]
    for sampler in ("jumps", "Euler"):
        for steps in few_step_study._STEPS:
            mine = [row for row in rows if (row["sampler"], int(row["steps"])) == (sampler, steps)]
            cells = []
            for name in names:
                mean, low, high = mean_interval([float(row[name]) for row in mine])
                cells.append(f"{mean:.3g} ({low:.3g} to {high:.3g})")
            lines.append(f"| {sampler} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


@fast_cpu()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/few-step-emoji", help="folder of the run")
    parser.add_argument("--seconds", type=float, default=2700, help="training time, over all calls")
    parser.add_argument("--bundle", metavar="MACHINE", help="bundle the trained model; where it was trained")
    options = parser.parse_args()
    if options.bundle:
        bundle(Path(options.out), options.bundle)
    else:
        train(Path(options.out), options.seconds)


if __name__ == "__main__":
    main()
