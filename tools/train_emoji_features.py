"""Train the classifier of emoji whose hidden units are the features of `dit_nb.emoji_features`, and write its card.

python tools/train_emoji_features.py        (two minutes of one core)
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dit_nb.data import emoji
from dit_nb.emoji_features import EmojiClassifier

CARD = """---
library_name: dit_nb
license: apache-2.0
---
# A classifier of emoji, as feature network

`dit_nb.emoji_features.EmojiClassifier`: {weights:,} weights in float16, trained on the 2723 training emoji of `dit_nb.data.emoji()` (Noto Emoji, Apache-2.0; Fluent Emoji, MIT), with mirror images and shifts by up to 2 pixels, by

    python tools/train_emoji_features.py --epochs {epochs} --seed {seed}

in {cpu_seconds} CPU seconds. Of the 512 held-out emoji it recognizes the category of {category:.1%} (of 8), the style of {style:.1%} (of 2), and both of {both:.1%}.
"""
FOLDER = Path(__file__).resolve().parents[1] / "dit_nb" / "models" / "emoji_features"


def shift(images: torch.Tensor, generator: torch.Generator, most: int = 2) -> torch.Tensor:
    "Move a batch by up to `most` pixels, white coming in."
    left, top = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (most, most, most, most), value=1.0)
    return padded[:, :, top : top + 32, left : left + 32]


def train(epochs: int, seed: int) -> EmojiClassifier:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data, model = emoji().train.with_mirror_images(), EmojiClassifier()
    steps = epochs * (len(data) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        for rows in order[: len(order) // 64 * 64].split(64):
            x, y = data.get_batch(rows.tolist())
            loss = F.cross_entropy(model(shift(x, generator)), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)
    return model.eval().half().float()  # as it will be loaded


@torch.inference_mode()
def accuracy(model: EmojiClassifier) -> dict[str, float]:
    "Of the held-out emoji: both right, category right, style right. Labels are 2 * category + style."
    data = emoji().held_out
    guess, y = model(data.images).argmax(1), data.labels
    hits = {"both": guess == y, "category": guess // 2 == y // 2, "style": guess % 2 == y % 2}
    return {name: hit.float().mean().item() for name, hit in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.process_time()
    model = train(options.epochs, options.seed)
    facts = {"weights": sum(p.numel() for p in model.parameters()), **vars(options), **accuracy(model)}
    facts["cpu_seconds"] = round(time.process_time() - start)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, FOLDER / "model.safetensors")
    (FOLDER / "model.safetensors").chmod(0o644)
    (FOLDER / "README.md").write_text(CARD.format(**facts), encoding="utf-8")
    print(CARD.format(**facts))


if __name__ == "__main__":
    main()
