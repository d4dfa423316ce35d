"""`dit-nb encode`: encode images, and their mirror images, into latents of an autoencoder."""

import math

import torch

from dit_nb.batches import BatchReader
from dit_nb.commands.data import _describe_data, _open_images_to_encode, _ranks
from dit_nb.commands.networks import _describe_network
from dit_nb.commands.options import Encode
from dit_nb.distributed import _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.latent_cache import _SHARD_SIZE, LatentImages, encode_images
from dit_nb.latents import LatentCodec
from dit_nb.speed import _tf32, fast_cpu

__all__ = []

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_MEASURED = 512  # images whose latents are measured for --scale channels


@fast_cpu()
def run(options: Encode) -> None:
    "Run dit-nb encode."
    with _tf32(options.tf32):
        _encode(options)


def _encode(options: Encode) -> None:
    state = _process_state()
    with _raise_on_all_ranks():
        codec = _load_codec(options, state.device)
    images = _open_images_to_encode(options, codec.image_channels)
    if state.is_main_process:
        print(_describe_data(images, name=options.images))
        print(_describe_run(codec, len(images), options.batch_size, state), flush=True)
    if options.scale == "channels":
        codec = _measured(codec, images)
    ranks = {"rank": state.process_index, "world_size": state.num_processes}
    ranks["on_all_ranks"] = _raise_on_all_ranks
    latents = encode_images(images, codec, options.out, options.batch_size, options.num_workers, **ranks)
    if state.is_main_process:
        print(_report(latents, options.out))


def _describe_run(codec: LatentCodec, n: int, batch_size: int, state) -> str:
    "Parameters, precision and device of the autoencoder, and the number of batches, which do not cross shards."
    shards, rest = divmod(n, _SHARD_SIZE)
    batches = shards * math.ceil(_SHARD_SIZE / batch_size) + math.ceil(rest / batch_size)
    return (
        f"autoencoder: {_describe_network(codec.vae.parameters(), state, codec.dtype)}\n"
        f"run: {batches:,} batches of up to {batch_size} images, each with its mirror image"
    )


def _load_codec(options: Encode, device: torch.device) -> LatentCodec:
    scale = None
    if options.scale not in (None, "channels"):
        try:
            scale = float(options.scale)
        except ValueError:
            raise UserError(f"scale is {options.scale}, but must be a number, or channels.") from None
    dtype = _DTYPES[options.dtype]
    return LatentCodec.load(options.vae, device=device, dtype=dtype, tiling=options.tiling, scale=scale)


def _measured(codec: LatentCodec, images) -> LatentCodec:
    "The codec with scale and shift of each channel, measured by the main process."
    ranks, facts = _ranks(), None
    with _raise_on_all_ranks():
        if ranks.rank == 0:
            fitted = codec.fitted(BatchReader(images)(_spread(len(images), _MEASURED))[0])
            facts = (fitted.scale, fitted.shift)
    return LatentCodec(codec.vae, *ranks.gather(facts)[0], codec.dtype, codec.batch_size)


def _spread(n: int, count: int) -> list[int]:
    "Up to `count` indices below n, evenly spread."
    return torch.linspace(0, n - 1, min(n, count)).long().unique().tolist()


def _report(latents: LatentImages, out: str) -> str:
    "Number, shape and standard deviation of the latents, and the scale that would make it 1 if it is far from 1."
    mean, noise = latents.get_batch(_spread(len(latents), 256))[0][:, 0].unbind(1)
    std = (
        (mean.var() + noise.square().mean()).sqrt().item()
    )  # of samples from the posterior, which the model gets
    shape, scale = "x".join(map(str, latents.shape)), latents.vae["scale"]
    text = f"{len(latents)} images and their mirror images as latents of {shape} in {out}, std {std:.2f}"
    if 0.5 < std < 2:
        return text
    better = "channels" if isinstance(scale, list) else f"{scale / std:.5f}"
    return f"{text} (should be about 1: use --scale {better})"
