"""Train the bundled text-to-emoji model: an MM-DiT with rectified flow, on the training emoji and their captions.

    python tools/train_text_emoji.py --out runs/text-emoji --seconds 3000

It writes a model into the folder `model` of --out; `tools/bundle_text_emoji_model.py` measures it and puts it into the
package.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from dit_nb.config import TrainConfig
from dit_nb.data import emoji
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from dit_nb.since.text import Vocabulary, caption, caption_set
from dit_nb.speed import fast_cpu
from dit_nb.step_noise import NoiseSource, StepNoise
from dit_nb.training import Trainer
from dit_nb.utils import seeded_generator


@dataclass(frozen=True)
class FlowNoise(NoiseSource):
    "Noise of a step with flow times."

    def __call__(self, step: int, shape: tuple[int, ...]) -> StepNoise:
        times = RectifiedFlow().sample_times(shape[0], seeded_generator(self.seed, 5, step))
        return super().__call__(step, shape)._replace(t=times)


@fast_cpu()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/text-emoji")
    parser.add_argument("--seconds", type=float, default=3000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--word-dropout", type=float, default=0.05)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--save-every", type=int, default=500)
    options = parser.parse_args()
    torch.manual_seed(0)
    data = emoji().train.with_mirror_images()
    vocabulary = Vocabulary.of(caption(entry) for entry in data.entries)
    config = MMDiTConfig(
        input_size=32,
        patch_size=4,
        in_channels=3,
        hidden_size=options.width,
        depth=options.depth,
        num_heads=options.heads,
        init="scaled",
        vocabulary=vocabulary.words,
        text_length=12,
        text_width=options.width,
        pooled_width=options.width,
    )
    captions = caption_set(data, vocabulary, config.text_length, options.word_dropout)
    settings = TrainConfig(
        seconds=options.seconds,
        batch_size=options.batch_size,
        lr=options.lr,
        lr_schedule="cosine",
        warmup_steps=100,
        beta2=0.99,
        grad_clip=1.0,
        ema_decay=0.998,
        compile=True,
        precision=options.precision,
        save_every=options.save_every,
    )
    trainer = Trainer(
        MMDiT(config), RectifiedFlow(), captions, settings, options.out, noise=FlowNoise(0, 1000, 0.1)
    )
    model = trainer.fit()
    model.save_pretrained(Path(options.out) / "model")
    print(trainer.progress)


if __name__ == "__main__":
    main()
