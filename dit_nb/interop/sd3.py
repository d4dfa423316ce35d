"""Import of Stable Diffusion 3 transformers of the diffusers library as `MMDiT`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dit_nb.config import SamplingConfig
from dit_nb.errors import UserError
from dit_nb.hub import _saved_file
from dit_nb.interop.folders import _is_alone, _load_transformer
from dit_nb.pretrained import _default_sampling
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from dit_nb.utils import _read_json_object

__all__ = ["from_sd3", "load_sd3"]

_STREAMS = {  # stream: its names in diffusers
    "image": {
        "adaLN_modulation.1": "norm1.linear",
        "qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "attn.proj": "attn.to_out.0",
        "norm_q": "attn.norm_q",
        "norm_k": "attn.norm_k",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
    },
    "text": {
        "adaLN_modulation.1": "norm1_context.linear",
        "qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "attn.proj": "attn.to_add_out",
        "norm_q": "attn.norm_added_q",
        "norm_k": "attn.norm_added_k",
        "mlp.fc1": "ff_context.net.0.proj",
        "mlp.fc2": "ff_context.net.2",
    },
}
_MODEL = {  # name here: name in diffusers
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "pooled_embedder.0": "time_text_embed.text_embedder.linear_1",
    "pooled_embedder.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
}


def _joint_block_from_sd3(weights: Mapping[str, Tensor], context_pre_only: bool = False) -> dict[str, Tensor]:
    """Rename the weights of a `JointTransformerBlock` of diffusers to those of a `JointBlock`.

    With `context_pre_only`, diffusers keeps the text's scale before its shift (`AdaLayerNormContinuous`): swapped here.
    """
    found = {}
    for stream, names in _STREAMS.items():
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                sources = [f"{name}.{kind}" for name in ((theirs,) if isinstance(theirs, str) else theirs)]
                if all(source in weights for source in sources):
                    name = f"{stream}.attn.qkv" if ours == "qkv" else f"{stream}.{ours}"
                    found[f"{name}.{kind}"] = torch.cat([weights[source] for source in sources])
    if context_pre_only:
        for kind in ("weight", "bias"):
            name = f"text.adaLN_modulation.1.{kind}"
            found[name] = _swap_halves(found[name])
    return found


def _swap_halves(weight: Tensor) -> Tensor:
    "Scale, shift to shift, scale."
    return torch.cat(weight.chunk(2)[::-1])


def from_sd3(transformer: nn.Module) -> MMDiT:
    """Convert a `diffusers.SD3Transformer2DModel` to an `MMDiT` without a text encoder, in eval() mode.

    Call its `predict(x, t, text)` with a `dit_nb.since.text.Text`: tokens and pooled vector of SD3's text encoders,
    and `keep` all True, since SD3 attends to padding.

    Args:
        transformer: model of SD3, not of SD3.5 medium, whose blocks have a second attention

    Raises:
        UserError: if the model has blocks of another kind
    """
    theirs = transformer.config
    if theirs.dual_attention_layers:
        raise UserError(
            f"transformer has dual_attention_layers {tuple(theirs.dual_attention_layers)}, but must have none."
        )
    config = _config(theirs)
    model, weights = MMDiT(config), transformer.state_dict()
    found = {
        f"{ours}.{kind}": weights[f"{name}.{kind}"]
        for ours, name in _MODEL.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):  # norm_out is an AdaLayerNormContinuous, too
        found[f"final_layer.adaLN_modulation.1.{kind}"] = _swap_halves(weights[f"norm_out.linear.{kind}"])
    for i in range(config.depth):
        start = f"transformer_blocks.{i}."
        block = {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}
        block = _joint_block_from_sd3(block, context_pre_only=i == config.depth - 1)
        found |= {f"blocks.{i}.{name}": weight for name, weight in block.items()}
    found["pos_embed"] = _centered_positions(
        weights["pos_embed.pos_embed"], theirs.pos_embed_max_size, config.grid
    )
    model.load_state_dict(found)
    return model.eval()


def load_sd3(source: str | Path, **download) -> tuple[MMDiT, SamplingConfig]:
    """Load Stable Diffusion 3's transformer as an `MMDiT` in eval() mode, with its sampling settings.

    These are settings of a flow; `time_shift` is the `shift` of the pipeline's scheduler, by default SD3's 3.

    Args:
        source: folder of a pipeline or of its transformer, or a Hub id
        **download: options of the Hub: revision, token, cache_dir, force_download, local_files_only

    Raises:
        UserError: if files are missing or damaged, or `from_sd3` cannot convert the transformer
    """
    from diffusers import SD3Transformer2DModel

    transformer = _load_transformer(SD3Transformer2DModel, source, **download)
    try:
        model = from_sd3(transformer)
    except UserError as error:
        raise UserError(
            f"{source} holds an SD3Transformer2DModel that `from_sd3` cannot convert: {error}"
        ) from None
    shift = 3.0
    if not _is_alone(source):
        scheduler = _saved_file(source, "scheduler/scheduler_config.json", **download)
        shift = _read_json_object(scheduler).get("shift", shift)
    return model, replace(_default_sampling(model.config, "MMDiT"), time_shift=shift)


def _config(theirs) -> MMDiTConfig:
    "Configuration of an SD3 transformer."
    width = theirs.num_attention_heads * theirs.attention_head_dim
    if theirs.caption_projection_dim != width:
        raise UserError(
            f"caption_projection_dim is {theirs.caption_projection_dim}, but must be the width {width}."
        )
    if theirs.qk_norm not in (None, "rms_norm"):
        raise UserError(f"qk_norm is {theirs.qk_norm}, but must be None or rms_norm.")
    if theirs.out_channels not in (None, theirs.in_channels):
        raise UserError(
            f"out_channels is {theirs.out_channels}, but must be in_channels {theirs.in_channels}."
        )
    return MMDiTConfig(
        input_size=theirs.sample_size,
        patch_size=theirs.patch_size,
        in_channels=theirs.in_channels,
        hidden_size=width,
        depth=theirs.num_layers,
        num_heads=theirs.num_attention_heads,
        text_width=theirs.joint_attention_dim,
        pooled_width=theirs.pooled_projection_dim,
        qk_norm=theirs.qk_norm == "rms_norm",
    )


def _centered_positions(table: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    "The middle of a square table of positions (1, side * side, D), for a grid of patches: (1, T, D)."
    rows, columns = grid
    top, left = (side - rows) // 2, (side - columns) // 2
    middle = table.view(1, side, side, -1)[:, top : top + rows, left : left + columns]
    return middle.reshape(1, rows * columns, -1)
