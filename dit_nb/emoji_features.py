"""Evaluation of emoji: a small classifier as feature network, and metrics of samples."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dit_nb.emoji import CATEGORIES, STYLES, EmojiSet, EmojiSplit
from dit_nb.errors import UserError
from dit_nb.evaluation import frechet_distance
from dit_nb.features import Features

__all__ = ["EmojiClassifier", "emoji_classifier", "evaluate_emoji"]

_WEIGHTS = files("dit_nb") / "models" / "emoji_features" / "model.safetensors"


class EmojiClassifier(nn.Module):
    """Convolutional network for emoji (N, 3, 32, 32): three convolutions of stride 2, and 64 features.

    Args:
        num_classes: number of classes, K: 16, category times style, for the bundled weights
    """

    def __init__(self, num_classes: int = 16):
        super().__init__()
        layers = []
        for channels_in, channels in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(channels_in, channels, 3, 2, 1), nn.GroupNorm(8, channels), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 64), nn.ReLU())
        self.head = nn.Linear(64, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Hidden units (N, 64) before the last layer, for images (N, 3, 32, 32) in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of category and style, for images (N, 3, 32, 32) in [-1, 1]."""
        return self.head(self.features(images))


@lru_cache(maxsize=1)
def emoji_classifier() -> EmojiClassifier:
    """Load the classifier that comes with the package, in eval() mode; its card states its accuracy."""
    classifier = EmojiClassifier()
    classifier.load_state_dict({k: v.float() for k, v in load_file(str(_WEIGHTS)).items()})
    return classifier.eval().requires_grad_(False)


class _EmojiExtractor:
    "Features of emoji: hidden units of the bundled classifier, and its class probabilities."

    name = "emoji"

    def _weights(self) -> list[Tensor]:
        return list(emoji_classifier().parameters())

    def __call__(self, images: Tensor) -> Features:
        if images.shape[1:] != (3, 32, 32):
            shape = "x".join(map(str, images.shape[1:]))
            raise UserError(f"images are {shape}, but must be 3x32x32 for emoji.")
        classifier = emoji_classifier()
        with torch.inference_mode():
            hidden = classifier.features(images.float().cpu())
            probs = classifier.head(hidden).softmax(1)
        return Features(hidden.double().numpy(), None, probs.double().numpy())


def _features(images: Tensor) -> np.ndarray:  # (N, 64)
    return np.concatenate([_EmojiExtractor()(batch.clamp(-1, 1)).pooled for batch in images.split(256)])


def evaluate_emoji(images: Tensor, labels: Tensor, split: EmojiSplit) -> dict[str, float]:
    """Measure whether samples look like unseen emoji of their class, and are no copies; each beside real emoji.

    The Fréchet distance of real emoji is that of as many training emoji of the same classes, since it depends on the
    number of pictures. Copies are searched among the training emoji and their mirror images.

    Args:
        images: (N, 3, 32, 32) samples in [-1, 1]
        labels: (N,) classes that the samples should show, of `split`
        split: real emoji, loaded with the default `classes`

    Returns:
        Fréchet distance from the held-out emoji, accuracy of category and style by the bundled classifier, and median
        distance (RMS of a pixel) to the nearest training emoji of the class
    """
    train, held_out = split
    real = train.images[_rows_of_classes(train.labels, labels)]
    found = {
        "frechet": frechet_distance(_features(images), _features(held_out.images)),
        "frechet_real": frechet_distance(_features(real), _features(held_out.images)),
    }
    known = train.with_mirror_images()
    for name, (x, y) in {"": (images, labels), "_real": (held_out.images, held_out.labels)}.items():
        category, style = _recognized(x, [train.class_names[k] for k in y.tolist()])
        found |= {f"category_accuracy{name}": category, f"style_accuracy{name}": style}
        found[f"nearest_train{name}"] = float(_nearest_in_class(x, y, known)[0].median())
    return found


def _rows_of_classes(known: Tensor, wanted: Tensor) -> Tensor:
    "Random rows of labels `known`, as many of each class as `wanted` has, or all that there are; seed 0."
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
    counts = {k: int(n) for k, n in zip(*(v.tolist() for v in wanted.unique(return_counts=True)))}
    return torch.cat([order[known[order] == k][:n] for k, n in counts.items()])


def _recognized(images: Tensor, names: Sequence[str]) -> tuple[float, float]:
    "Fractions of images whose category and whose style the bundled classifier recognizes."
    known = [f"{category}-{style}" for category in CATEGORIES for style in STYLES]
    probs = np.concatenate([_EmojiExtractor()(batch.clamp(-1, 1)).probs for batch in images.split(256)])
    guesses = [known[k].split("-") for k in probs.argmax(1)]
    hits = np.array([np.array(guess) == name.split("-") for guess, name in zip(guesses, names)])
    return float(hits[:, 0].mean()), float(hits[:, 1].mean())


def _nearest_in_class(images: Tensor, labels: Tensor, known: EmojiSet) -> tuple[Tensor, Tensor]:
    "RMS difference (N,) from each image to the nearest known one of its class, and that one's index (N,)."
    rms = (3 * 32 * 32) ** 0.5
    exact = "donot_use_mm_for_euclid_dist"  # distance of an image from itself: exactly 0
    distance, index = torch.empty(len(images)), torch.empty(len(images), dtype=torch.long)
    for y in labels.unique().tolist():
        mine, theirs = labels == y, (known.labels == y).nonzero()[:, 0]
        pixels = images[mine].clamp(-1, 1).flatten(1), known.images[theirs].flatten(1)
        found = torch.cdist(*pixels, compute_mode=exact).min(1)
        distance[mine], index[mine] = found.values / rms, theirs[found.indices]
    return distance, index


def _composition_scores(images: Tensor, labels: Tensor, split: EmojiSplit, seed: int = 0) -> dict[str, dict]:
    """Ask whether samples of (category, style) know what held-out emoji of that class look like.

    Half of the held-out emoji have a name that was seen in the other style, half have an unseen name. "half_seen" is
    the probability that a sample is closer to one of the former than to one of the latter of its class, 0.5 if
    the other style taught nothing. "style" is the fraction of held-out emoji whose closest sample of their category has
    their style, 0.5 if style means nothing.

    Args:
        images: (N, 3, 32, 32) samples in [-1, 1], equally many of each class
        labels: (N,) classes of the samples, of `split`, which has both styles
        split: real emoji, loaded with the default `classes`
        seed: seed of the bootstrap

    Returns:
        value, low and high of each score, with 95 % bootstrap intervals over held-out emoji
    """
    held_out, seen = split.held_out, {entry.name for entry in split.train.entries}
    distances = torch.cdist(images.clamp(-1, 1).flatten(1), held_out.images.flatten(1))  # (N, M)
    half_seen = torch.tensor([entry.name in seen for entry in held_out.entries])
    wins, styles = torch.full((len(held_out),), torch.nan), torch.empty(len(held_out))
    for i, y in enumerate(held_out.labels.tolist()):
        mine = labels == y
        others = (held_out.labels == y) & ~half_seen
        if half_seen[i] and others.any():
            wins[i] = (distances[mine, i, None] < distances[mine][:, others]).float().mean()
        category = held_out.class_names[y].split("-")[0]
        rivals = [k for k, name in enumerate(held_out.class_names) if name.startswith(category + "-")]
        near = torch.isin(labels, torch.tensor(rivals)).nonzero()[:, 0]
        styles[i] = float(labels[near[distances[near, i].argmin()]] == y)
    found = {"half_seen": wins[~wins.isnan()], "style": styles}
    return {name: _with_bootstrap(values.double().numpy(), seed) for name, values in found.items()}


def _with_bootstrap(values: np.ndarray, seed: int, resamples: int = 1000) -> dict[str, float]:
    "Mean of values, and its 95 % bootstrap interval."
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}
