"""Train the bundled text-to-emoji model: an MM-DiT with rectified flow, on training emoji and their captions.

    python tools/train_text_emoji.py --out runs/text-emoji --seconds 3720

It writes the model into the folder `model` of --out; `tools/bundle_text_emoji_model.py` puts it into the package.
"""

import argparse
from pathlib import Path

import torch

from dit_nb.config import SamplingConfig, TrainConfig
from dit_nb.data import emoji
from dit_nb.pretrained import save_model
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from dit_nb.since.text import Vocabulary, caption, caption_set
from dit_nb.speed import _SigmoidGELU, fast_cpu
from dit_nb.training import Trainer


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/text-emoji", help="output folder")
    parser.add_argument("--seconds", type=float, default=3720, help="training time")
    parser.add_argument(
        "--categories",
        nargs="*",
        default=["smileys", "animals", "food"],
        help="categories of emoji; none: all eight",
    )
    parser.add_argument("--width", type=int, default=128, help="width of a token, of image and text")
    parser.add_argument("--depth", type=int, default=6, help="number of joint blocks")
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--batch-size", type=int, default=64, help="images per update")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="learning rate of AdamW")
    parser.add_argument("--word-dropout", type=float, default=0.05, help="probability of hiding a word")
    parser.add_argument("--save-every", type=int, default=500, help="updates between checkpoints")
    return parser.parse_args()


@fast_cpu()
def main() -> None:
    options = read_options()
    torch.manual_seed(0)
    data = emoji(options.categories or None).train.with_mirror_images()
    vocabulary = Vocabulary.of(caption(entry) for entry in data.entries)
    sizes = {"hidden_size": options.width, "text_width": options.width, "pooled_width": options.width}
    sizes |= {"depth": options.depth, "num_heads": options.heads, "text_length": 12}
    model = MMDiT(MMDiTConfig(32, 4, **sizes, init="scaled", vocabulary=vocabulary.words))
    for block in model.blocks:  # an equal form that is faster when compiled on a CPU
        for stream in (block.image, block.text):
            if not stream.pre_only:
                stream.mlp.act = _SigmoidGELU()
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
        save_every=options.save_every,
    )
    captions = caption_set(data, vocabulary, 12, options.word_dropout)
    trainer = Trainer(model, RectifiedFlow(), captions, settings, options.out)
    sampling = SamplingConfig(objective="flow", steps="25", cfg_scale=3.0)
    save_model(trainer.fit(), Path(options.out) / "model", sampling)


if __name__ == "__main__":
    main()
