"""Does the bundled text-to-emoji model compose? Samples for captions that it has not seen, beside captions that it has.

`python -m dit_nb.lab.text_study` writes `results/text_emoji.csv`: a row for each caption.
"""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dit_nb.emoji import Emoji, EmojiSet, EmojiSplit, load_emoji
from dit_nb.emoji_features import _features, _recognized
from dit_nb.pretrained import sample_images, text_emoji_model
from dit_nb.since.text import caption
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.utils import _atomic_write, _cpu_has_bf16

__all__ = ["RESULTS", "half_seen_emoji"]

RESULTS = Path(__file__).parent / "results" / "text_emoji.csv"
_SAMPLES, _STEPS = 4, "20"  # samples of each caption, and their Euler steps
_COLUMNS = ("kind", "name", "style", "category", "pixels", "features", "style_right", "other_style")


def half_seen_emoji(split: EmojiSplit) -> EmojiSet:
    "Held-out emoji whose name was trained on in the other style: each word is known, the combination is not."
    names = {entry.name for entry in split.train.entries}
    rows = [i for i, entry in enumerate(split.held_out.entries) if entry.name in names]
    return split.held_out._take(rows)


def _seen_emoji(split: EmojiSplit, like: EmojiSet) -> EmojiSet:
    "Training emoji, as many of each class as in another set, spread over the training set."
    rows = []
    for label in like.labels.unique().tolist():
        mine, n = (split.train.labels == label).nonzero()[:, 0], int((like.labels == label).sum())
        rows += mine[torch.linspace(0, len(mine) - 1, n).long()].tolist()
    return split.train._take(rows)


def _wins(samples: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
    """How often samples are nearer to the wanted picture than to the wanted picture of another caption of the class.

    Args:
        samples: (M, K, ...) K samples of each of M captions: pixels or features
        wanted: (M, ...) the picture of each caption
        labels: (M,) class of each caption

    Returns:
        (M,) fractions of all pairs of a sample and another caption: 0.5 if samples know the class alone
    """
    d = torch.stack(
        [torch.cdist(k.flatten(1), wanted.flatten(1)) for k in samples.transpose(0, 1)], 1
    )  # (M, K, M)
    found = torch.empty(len(wanted))
    for i, label in enumerate(labels):
        others = (labels == label).index_fill(0, torch.tensor([i]), False)
        found[i] = (d[i, :, i, None] < d[i][:, others]).float().mean()
    return found


def _other_style(entries: Sequence[Emoji], known: EmojiSet) -> Tensor | None:
    "Training pictures of the same names in the other style, (M, C, H, W)."
    index = {(entry.name, entry.style): i for i, entry in enumerate(known.entries)}
    style = {"flat": "3d", "3d": "flat"}
    rows = [index.get((entry.name, style[entry.style])) for entry in entries]
    return None if None in rows else known.images[rows]


def _measure(kind: str, asked: EmojiSet, split: EmojiSplit, model, sampling) -> list[tuple]:
    "A row for each caption."
    ids = model.encode_text([caption(entry) for entry in asked.entries]).repeat_interleave(_SAMPLES, 0)
    model = InferenceModel(model, precision="bf16" if _cpu_has_bf16() else "fp32")
    samples = [
        sample_images(model, sampling, part, first=64 * i, progress=False)
        for i, part in enumerate(ids.split(64))
    ]
    samples = torch.cat(samples).clamp(-1, 1)
    pixels = _wins(samples.unflatten(0, (-1, _SAMPLES)), asked.images, asked.labels)
    seen = [torch.from_numpy(_features(images)).float() for images in (samples, asked.images)]
    features = _wins(seen[0].unflatten(0, (-1, _SAMPLES)), seen[1], asked.labels)
    others = _other_style(asked.entries, split.train)
    copied = (
        torch.full((len(asked),), torch.nan)
        if others is None
        else _wins(others[:, None], asked.images, asked.labels)
    )
    rows = []
    for i, entry in enumerate(asked.entries):
        mine = samples[i * _SAMPLES : (i + 1) * _SAMPLES]
        style = _recognized(mine, [f"{entry.category}-{entry.style}"] * _SAMPLES)[1]
        values = (float(pixels[i]), float(features[i]), style, float(copied[i]))
        rows.append((kind, entry.name, entry.style, entry.category, *(round(value, 4) for value in values)))
    return rows


@fast_cpu()
def main() -> None:
    "Record all captions."
    model, sampling = text_emoji_model(device="cpu")
    sampling = replace(sampling, sampler="euler", steps=_STEPS)
    split = load_emoji(("smileys", "animals", "food"))
    unseen = half_seen_emoji(split)
    rows = _measure("unseen", unseen, split, model, sampling)
    rows += _measure("seen", _seen_emoji(split, unseen), split, model, sampling)
    with _atomic_write(RESULTS) as draft, draft.open("w", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *rows])
    for kind in ("unseen", "seen"):
        values = torch.tensor([row[4:] for row in rows if row[0] == kind])
        print(kind, dict(zip(_COLUMNS[4:], values.nanmean(0).tolist())))


if __name__ == "__main__":
    main()
