"""Our models as `diffusers` transformers and back, and `diffusers` schedulers around our models."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.errors import UserError, _check_choice
from dit_nb.interop.official import _check_format, _load_strict, _official_state
from dit_nb.model import DiT
from dit_nb.objective import Diffusion, _split_output
from dit_nb.pretrained import make_diffusion
from dit_nb.sampling import _check_sample_inputs
from dit_nb.utils import _progress_bar, randn

__all__ = ["to_diffusers", "from_diffusers", "scheduler_sample"]

_NULL_CLASS = 1000  # the null class of diffusers' pipeline, for every model
_TOP_KEYS = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_BLOCK_KEYS = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
_QKV_KEYS = ("attn1.to_q", "attn1.to_k", "attn1.to_v")
_EMBEDDER_KEYS = {  # one copy in each block of diffusers
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_REQUIRED_SETTINGS = dict(norm_type="ada_norm_zero", activation_fn="gelu-approximate")
_REQUIRED_SETTINGS |= dict(attention_bias=True, norm_elementwise_affine=False)
_SCHEDULERS = {"ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "dpm++": "DPMSolverMultistepScheduler"}


def _key_map(depth: int) -> dict[str, list[str]]:
    "Map each of our layers to the layers of diffusers that hold its weights; q, k and v apart."
    keys = {ours: [theirs] for ours, theirs in _TOP_KEYS.items()}
    for i in range(depth):
        block = f"transformer_blocks.{i}."
        keys |= {f"blocks.{i}.{ours}": [block + theirs] for ours, theirs in _BLOCK_KEYS.items()}
        for ours, theirs in _EMBEDDER_KEYS.items():
            keys.setdefault(ours, []).append(block + theirs)
    return keys


def _diffusers_state(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    "Rename an official state dict to the keys of diffusers."
    new = {}
    for ours, theirs in _key_map(depth).items():
        for part in ("weight", "bias"):
            if f"{ours}.{part}" in state:
                new |= {f"{key}.{part}": state[f"{ours}.{part}"] for key in theirs}
    for i in range(depth):
        for part in ("weight", "bias"):
            qkv = state[f"blocks.{i}.attn.qkv.{part}"].chunk(3)
            new |= {f"transformer_blocks.{i}.{key}.{part}": one for key, one in zip(_QKV_KEYS, qkv)}
    return new


def _pad_labels(table: Tensor) -> Tensor:
    "Extend a label table (K + 1, D) to (1001, D) by repeating its last row, the null class."
    return torch.cat([table, table[-1:].expand(_NULL_CLASS + 1 - len(table), -1)])


def _trim_labels(table: Tensor) -> Tensor:
    "Undo `_pad_labels`: keep one of the equal rows at the end."
    others = (table != table[-1]).any(1).nonzero()
    return table[: int(others.max()) + 2] if len(others) else table[:1]


def _check_convertible(model: DiT) -> None:
    "Raise UserError if diffusers has no such model, or would guide it with a wrong null class."
    _check_format(model, "diffusers")
    config = model.config
    if config.mlp_ratio != 4:
        raise UserError(f"mlp_ratio is {config.mlp_ratio:g}, but must be 4 for diffusers.")
    if config.num_classes > _NULL_CLASS:
        raise UserError(
            f"num_classes is {config.num_classes}, but must be at most {_NULL_CLASS}: "
            f"class {_NULL_CLASS} is the null class of diffusers."
        )
    if config.num_classes and not config.class_dropout_prob:
        raise UserError("class_dropout_prob is 0, but must be above 0: diffusers guides with a null class.")


def _transformer_config(config: DiTConfig) -> dict[str, int]:
    "The shape of a model as arguments of `DiTTransformer2DModel`, without the number of classes."
    return {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "sample_size": config.image_shape[1],
        "patch_size": config.patch_size,
    }


def to_diffusers(model: DiT):
    """Convert a model to a `diffusers.DiTTransformer2DModel` on the CPU, in eval() mode.

    Its timestep frequencies are set as in `_fix_timestep_frequencies`.

    Raises:
        UserError: if diffusers has no such model: other blocks than adaLN-Zero, a non-square input, an
            mlp_ratio other than 4, more than 1000 classes, or no null class
    """
    from diffusers import DiTTransformer2DModel

    c = model.config
    _check_convertible(model)
    state, table = _official_state(model), "y_embedder.embedding_table.weight"
    state[table] = _pad_labels(state[table])
    transformer = DiTTransformer2DModel(
        **_transformer_config(c),
        num_embeds_ada_norm=_NULL_CLASS,
        norm_eps=1e-6,  # the default of diffusers is 1e-5
    )
    _load_strict(transformer, _diffusers_state(state, c.depth), "the model")
    _fix_timestep_frequencies(transformer)
    return transformer.eval()


def _fix_timestep_frequencies(transformer: nn.Module) -> None:
    """Set the timestep frequencies of a diffusers DiT to those of the official model: exponent i / 128, not i / 127."""
    from diffusers.models.embeddings import Timesteps

    for module in getattr(transformer, "transformer", transformer).modules():
        if isinstance(module, Timesteps):
            module.downscale_freq_shift = 0


def from_diffusers(transformer) -> DiT:
    """Convert a `diffusers.DiTTransformer2DModel` to our model, in eval() mode.

    The model is taken to be trained with the official timestep frequencies (see `_fix_timestep_frequencies`).

    Raises:
        UserError: if the transformer has other layers than ours, or embedders that differ between its blocks
    """
    c, theirs = transformer.config, transformer.state_dict()
    for name, wanted in _REQUIRED_SETTINGS.items():
        if getattr(c, name) != wanted:
            raise UserError(f"{name} of the transformer is {getattr(c, name)}, but must be {wanted}.")
    state = {}
    for ours, (first, *copies) in _key_map(c.num_layers).items():
        for part in [part for part in ("weight", "bias") if f"{first}.{part}" in theirs]:
            state[f"{ours}.{part}"] = one = theirs[f"{first}.{part}"]
            if not all(torch.equal(one, theirs[f"{copy}.{part}"]) for copy in copies):
                raise UserError(
                    f"{ours}.{part} differs between the transformer's blocks, but must be equal: "
                    "it was trained in diffusers, with embedders of its own in each block."
                )
    for i in range(c.num_layers):
        for part in ("weight", "bias"):
            qkv = [theirs[f"transformer_blocks.{i}.{key}.{part}"] for key in _QKV_KEYS]
            state[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(qkv)
    return _build_model(state, c)


def _build_model(state: dict[str, Tensor], c) -> DiT:
    "Build a DiT from an official state dict without pos_embed, and the configuration of diffusers' transformer."
    key = "y_embedder.embedding_table.weight"
    state[key] = _trim_labels(state[key])
    rows, unlabeled = len(state[key]), len(state[key]) == 1 and not state[key].any()
    if unlabeled:
        del state[key]
    config = DiTConfig(
        input_size=c.sample_size,
        patch_size=c.patch_size,
        in_channels=c.in_channels,
        hidden_size=c.num_attention_heads * c.attention_head_dim,
        depth=c.num_layers,
        num_heads=c.num_attention_heads,
        num_classes=0 if unlabeled else max(rows - 1, 1),
        class_dropout_prob=0.1 if rows > 1 or unlabeled else 0.0,
        learn_sigma=(c.out_channels or c.in_channels) == 2 * c.in_channels,
    )
    model = DiT(config)
    _load_strict(model, {**state, "pos_embed": model.pos_embed.detach()}, "the transformer")
    return model.eval()


def _make_scheduler(sampling: SamplingConfig, name: str = "ddim", **changes):
    """Make a scheduler of diffusers with the noise schedule that a model was trained with."""
    import diffusers

    _check_choice("scheduler", name, _SCHEDULERS)
    steps, clip = make_diffusion(sampling).num_timesteps, sampling.clip_x0
    settings = {"num_train_timesteps": steps, "prediction_type": "epsilon"}
    if not isinstance(sampling.schedule, str):
        settings["trained_betas"] = list(sampling.schedule)
    elif sampling.schedule == "cosine":
        settings["beta_schedule"] = "squaredcos_cap_v2"
    else:
        settings |= {"beta_schedule": "linear", "beta_start": 0.1 / steps, "beta_end": 20 / steps}
    if name == "dpm++":  # dynamic thresholding with a ceiling of 1 is clipping
        settings |= {"thresholding": clip, "sample_max_value": 1.0, "algorithm_type": "dpmsolver++"}
        settings |= {"lambda_min_clipped": -5.1} if sampling.schedule == "cosine" else {}
    else:
        settings["clip_sample"] = clip
    if name == "ddpm":
        kinds = {"learned": "learned_range", "fixed_small": "fixed_small", "fixed_large": "fixed_large"}
        settings["variance_type"] = kinds[sampling.variance]
    return getattr(diffusers, _SCHEDULERS[name])(**{**settings, **changes})


def scheduler_sample(
    diffusion: Diffusion,
    model: Callable,
    shape: tuple[int, ...],
    y: Tensor | None = None,
    *,
    scheduler,
    steps: int = 20,
    x_T: Tensor | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
    **options,
) -> Tensor:
    """Sample with a scheduler of diffusers. Clipping is a setting of the scheduler.

    Args:
        diffusion: the diffusion process that the model was trained with, not respaced
        scheduler: a scheduler of diffusers that takes predicted noise
        steps: number of sampling steps
        callback: function of (step index, timestep, x), called after each step
        model, shape, y, x_T, generator, progress, device: as for `sample_loop`
        **options: further arguments of `scheduler.step`, such as eta

    Returns:
        (N, C, H, W) samples

    Raises:
        UserError: if the scheduler does not fit the model's noise schedule or predictions
    """
    _check_sample_inputs(diffusion, model, shape, y, x_T)
    with_variance = _check_scheduler(scheduler, diffusion)
    scheduler = type(scheduler).from_config(scheduler.config)  # a copy: sampling changes its state
    given = [tensor.device for tensor in (x_T, y) if tensor is not None]
    device = given[0] if given else device or diffusion.timestep_map.device
    scheduler.set_timesteps(steps, device=device)
    times = scheduler.timesteps.round().long()  # some schedulers use fractional timesteps
    if hasattr(model, "precompute_conditioning"):
        model = model.precompute_conditioning(times, y)
    known = inspect.signature(scheduler.step).parameters
    if "generator" in known:
        options["generator"] = generator
    if "use_clipped_model_output" in known:  # DDIM: recompute eps from the clipped x0, as `ddim_step` does
        options.setdefault("use_clipped_model_output", True)
    x = randn(shape, generator, device) if x_T is None else x_T
    x = x * scheduler.init_noise_sigma
    with torch.no_grad():
        for i, step in enumerate(_progress_bar(scheduler.timesteps, "sampling", progress)):
            output = model(scheduler.scale_model_input(x, step), times[i].expand(shape[0]), y).float()
            eps = output if with_variance else _split_output(output, x)[0]
            x = scheduler.step(eps, step, x, **options).prev_sample
            if callback is not None:
                callback(i, int(times[i]), x)
    return x


def _check_scheduler(scheduler, diffusion: Diffusion) -> bool:
    "Whether the scheduler takes variance values too; raise UserError if it does not fit the model."
    settings, name = scheduler.config, type(scheduler).__name__
    prediction = settings.get("prediction_type")
    if prediction != "epsilon" or not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(f"prediction_type of {name} is {prediction}, but must be epsilon (predicted noise).")
    theirs, ours = scheduler.alphas_cumprod.cpu().double(), diffusion.alphas_cumprod.cpu()
    if len(theirs) != len(ours) or not torch.allclose(theirs, ours, atol=1e-4):
        raise UserError(
            f"{name} has another noise schedule than the model was trained with: use make_scheduler."
        )
    variance = str(settings.get("variance_type"))
    if variance.startswith("learned") and not name.startswith("DDPM"):  # they assume three channels
        raise UserError(f"variance_type of {name} is {variance}, but must be None.")
    return variance.startswith("learned")
