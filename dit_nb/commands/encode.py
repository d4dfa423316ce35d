"""Your pictures as latents, once and for all: of each picture and of its mirror image, where they lie and how wide."""

import argparse

import torch

from dit_nb.distributed import main_first, processes, together
from dit_nb.image_files import open_images
from dit_nb.latent_cache import LatentImages, encode_images
from dit_nb.latents import VAE, LatentCodec

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def run(args: argparse.Namespace) -> None:
    "dit-nb encode"
    state, precision = processes(), PRECISIONS[args.dtype]
    codec = LatentCodec.load(args.vae, device=state.device, dtype=precision, tiling=args.tiling)
    size = args.image_size or (None if args.images == "digits" else 256)
    images = main_first(lambda: open_images(args.images, size, codec.image_channels, args.skip_bad))
    share = {"rank": state.process_index, "world": state.num_processes, "together": together}
    latents = encode_images(images, codec, args.out, args.batch_size, args.workers, **share)
    if state.is_main_process:
        skipped = len(getattr(images, "skipped", ()))
        print(report(latents, args.out) + (f"; {skipped} images could not be read" if skipped else ""))


def report(
    latents: LatentImages,
    out: str,  # their folder
) -> str:
    "What has been made, in a sentence."
    spots = torch.linspace(0, len(latents) - 1, min(len(latents), 256)).long().unique().tolist()
    spread = latents.__getitems__(spots)[0][:, 0, 0].std().item()
    shape = "x".join(map(str, latents.shape))
    text = (
        f"{len(latents)} images and their mirror images as latents of {shape} in {out}, spread {spread:.2f}"
    )
    if not 0.5 < spread < 2:
        text += f" (about 1 is wanted: a scale of {latents.vae['scale'] / spread:.5f} would bring it there)"
    return text


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb encode."
    add = parser.add_argument
    add(
        "images",
        metavar="IMAGES",
        help="a folder of images, best with a sub-folder for each class; or hub:NAME",
    )
    add("--vae", default=VAE, help="folder or hub id of an AutoencoderKL (default: %(default)s)")
    add("--out", required=True, help="folder to make; an unfinished one is gone on with")
    add("--image-size", type=int, help="side of the square that images are cropped to (default: 256)")
    add("--batch-size", type=int, default=32, help="images at a time (default: %(default)s)")
    add("--workers", type=int, default=0, help="processes that load images (default: %(default)s)")
    add(
        "--dtype",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="to compute in; bf16 is faster on a GPU (default: %(default)s)",
    )
    add("--tiling", action="store_true", help="encode large images in tiles: less memory, faint seams")
    add("--skip-bad", action="store_true", help="leave out images that cannot be read")
