"""`dit-nb encode`: encode images, and their mirror images, into latents of an autoencoder."""

import torch

from dit_nb.commands.data import _describe_data, _open_images_to_encode
from dit_nb.commands.options import Encode
from dit_nb.distributed import _process_state, _raise_on_all_ranks
from dit_nb.latent_cache import LatentImages, encode_images
from dit_nb.latents import LatentCodec
from dit_nb.speed import fast_cpu

__all__ = []

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@fast_cpu()
def run(options: Encode) -> None:
    "Run dit-nb encode."
    state, dtype = _process_state(), _DTYPES[options.dtype]
    with _raise_on_all_ranks():
        how = {"device": state.device, "dtype": dtype, "tiling": options.tiling, "scale": options.scale}
        codec = LatentCodec.load(options.vae, **how)
    images = _open_images_to_encode(options, codec.image_channels)
    if state.is_main_process:
        print(_describe_data(images, name=options.images), flush=True)
    ranks = {"rank": state.process_index, "world_size": state.num_processes}
    ranks["on_all_ranks"] = _raise_on_all_ranks
    latents = encode_images(images, codec, options.out, options.batch_size, options.num_workers, **ranks)
    if state.is_main_process:
        print(_report(latents, options.out))


def _report(latents: LatentImages, out: str) -> str:
    "Number, shape and standard deviation of the latents, and the scale that would make it 1 if it is far from 1."
    indices = torch.linspace(0, len(latents) - 1, min(len(latents), 256)).long().unique().tolist()
    std = latents.get_batch(indices)[0][:, 0, 0].std().item()
    shape = "x".join(map(str, latents.shape))
    text = f"{len(latents)} images and their mirror images as latents of {shape} in {out}, std {std:.2f}"
    if 0.5 < std < 2:
        return text
    return f"{text} (should be about 1: use --scale {latents.vae['scale'] / std:.5f})"
