"""`dit-nb encode`: encode images, and their mirror images, into latents of an autoencoder."""

import argparse

import torch

from dit_nb.distributed import _main_process_first, _process_state, _raise_on_all_ranks
from dit_nb.image_files import open_images
from dit_nb.latent_cache import LatentImages, encode_images
from dit_nb.latents import VAE, LatentCodec

__all__ = []

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def run(args: argparse.Namespace) -> None:
    "Run dit-nb encode."
    state, size = _process_state(), args.image_size or (None if args.images == "digits" else 256)
    codec = LatentCodec.load(args.vae, device=state.device, dtype=_DTYPES[args.dtype], tiling=args.tiling)
    images = _main_process_first(lambda: open_images(args.images, size, codec.image_channels, args.skip_bad))
    ranks = {"rank": state.process_index, "world_size": state.num_processes}
    ranks["on_all_ranks"] = _raise_on_all_ranks
    latents = encode_images(images, codec, args.out, args.batch_size, args.num_workers, **ranks)
    if state.is_main_process:
        skipped = len(getattr(images, "skipped", ()))
        print(_report(latents, args.out) + (f"; skipped {skipped} unreadable images" if skipped else ""))


def _report(latents: LatentImages, out: str) -> str:
    "Number, shape and standard deviation of the latents, and the scale that would make it 1 if it is far from 1."
    indices = torch.linspace(0, len(latents) - 1, min(len(latents), 256)).long().unique().tolist()
    std = latents.__getitems__(indices)[0][:, 0, 0].std().item()
    shape = "x".join(map(str, latents.shape))
    text = f"{len(latents)} images and their mirror images as latents of {shape} in {out}, std {std:.2f}"
    if 0.5 < std < 2:
        return text
    return f"{text} (should be about 1: use a scale of {latents.vae['scale'] / std:.5f})"


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb encode."
    add, default = parser.add_argument, "(default: %(default)s)"
    images = "folder of images, with one sub-folder per class if it has classes; hub:NAME; or digits"
    add("images", metavar="IMAGES", help=images)
    add("--vae", default=VAE, help=f"folder or Hub id of an AutoencoderKL {default}")
    add("--out", required=True, help="output folder; an interrupted run is resumed")
    size = "side of the square to crop images to, in pixels (default: 256; 8 for digits)"
    add("--image-size", type=int, metavar="SIZE", help=size)
    add("--batch-size", type=int, default=32, metavar="SIZE", help=f"images per batch {default}")
    add("--num-workers", type=int, default=0, metavar="N", help=f"processes that load images {default}")
    dtype = f"number format of the autoencoder; bf16 is faster on a GPU {default}"
    add("--dtype", choices=tuple(_DTYPES), default="fp32", help=dtype)
    add("--tiling", action="store_true", help="encode large images in tiles: less memory, faint seams")
    add("--skip-bad", action="store_true", help="skip images that cannot be read")
