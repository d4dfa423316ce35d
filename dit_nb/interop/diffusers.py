"""Other names, copied embedders, another null class, and one number that is off by one: a model moves house, and does it draw the same?"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from dit_nb.config import DiTConfig
from dit_nb.interop.official import check_form, fill, official_state
from dit_nb.model import DiT
from dit_nb.objective import Diffusion, split_output
from dit_nb.patchify import pair
from dit_nb.pretrained import make_diffusion
from dit_nb.sampling import check_run, run_device
from dit_nb.utils import check_choice, randn, show_bar

OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}


INSIDE = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}


EMBEDDERS = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}


QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")


def places(
    depth: int,  # number of blocks
) -> dict[str, list[str]]:
    "For each of our layers, all the places where diffusers keeps it."
    names = {ours: [theirs] for ours, theirs in OUTSIDE.items()}
    for i in range(depth):
        block = f"transformer_blocks.{i}."
        names |= {f"blocks.{i}.{ours}": [block + theirs] for ours, theirs in INSIDE.items()}
        for ours, theirs in EMBEDDERS.items():
            names.setdefault(ours, []).append(block + theirs)
    return names


def diffusers_state(
    state: dict[str, Tensor],  # by official names
    depth: int,  # number of blocks
) -> dict[str, Tensor]:
    "The same weights by the names of diffusers."
    new = {}
    for ours, theirs in places(depth).items():
        for part in ("weight", "bias"):
            if f"{ours}.{part}" in state:
                new |= {f"{place}.{part}": state[f"{ours}.{part}"] for place in theirs}
    for i in range(depth):
        for part in ("weight", "bias"):
            three = state[f"blocks.{i}.attn.qkv.{part}"].chunk(3)
            new |= {f"transformer_blocks.{i}.{name}.{part}": one for name, one in zip(QKV, three)}
    return new


NULL_CLASS = 1000  # the number that diffusers' pipeline gives to 'no label'


def pad_labels(
    table: Tensor,  # (K + 1, D), the null class last; or (1, D) zeros for a model without classes
) -> Tensor:  # (1001, D)
    "A label table whose null class stands where diffusers looks for it, and in every row on the way."
    return torch.cat([table, table[-1:].expand(NULL_CLASS + 1 - len(table), -1)])


def trim_labels(
    table: Tensor,  # (rows, D)
) -> Tensor:  # (K + 1, D)
    "Undo `pad_labels`: of equal rows at the end, one is the null class."
    others = (table != table[-1]).any(1).nonzero()
    return table[: int(others.max()) + 2] if len(others) else table[:1]


def check_diffusers(config: DiTConfig) -> None:
    "Raise ValueError where diffusers has no such model, or would guide it wrongly."
    check_form(config, "diffusers")
    if config.mlp_ratio != 4:
        raise ValueError(f"diffusers knows mlp_ratio 4 alone, but this model's is {config.mlp_ratio:g}.")
    if config.num_classes > NULL_CLASS:
        raise ValueError(
            f"diffusers guides with class {NULL_CLASS} as the null class, but this model has "
            f"{config.num_classes} classes, so that {NULL_CLASS} is one of them."
        )
    if config.num_classes and not config.class_dropout_prob:
        raise ValueError(
            "diffusers guides with a null class, but this model has none: class_dropout_prob is 0."
        )


def transformer_shape(config: DiTConfig) -> dict[str, int]:
    "What a transformer of diffusers wants to hear about a model's shape, the number of classes apart."
    return {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "sample_size": pair(config.input_size)[0],
        "patch_size": config.patch_size,
    }


def to_diffusers(
    model: DiT,  # with adaLN-Zero blocks
):  # a diffusers.DiTTransformer2DModel in eval() mode, on the CPU
    "The model as a transformer of diffusers, with the right timestep frequencies."
    from diffusers import DiTTransformer2DModel

    c = model.config
    check_diffusers(c)
    state, table = official_state(model), "y_embedder.embedding_table.weight"
    state[table] = pad_labels(state[table])
    transformer = DiTTransformer2DModel(
        **transformer_shape(c),
        num_embeds_ada_norm=NULL_CLASS,
        norm_eps=1e-6,  # 1e-5 by default there
    )
    fill(transformer, diffusers_state(state, c.depth), "the model")
    set_frequencies(transformer)
    return transformer.eval()


def set_frequencies(
    transformer: nn.Module,  # a DiT of diffusers; or its pipeline
) -> None:
    "Give a DiT of diffusers the timestep frequencies that it was trained with: a division by 128, not 127."
    from diffusers.models.embeddings import Timesteps

    for module in getattr(transformer, "transformer", transformer).modules():
        if isinstance(module, Timesteps):
            module.downscale_freq_shift = 0


def from_diffusers(
    transformer,  # a diffusers.DiTTransformer2DModel
) -> DiT:
    "Our model with the weights of one from diffusers, in eval() mode. Timestep frequencies are taken for 128."
    c, theirs = transformer.config, transformer.state_dict()
    for name, wanted in KNOWN.items():
        if getattr(c, name) != wanted:
            raise ValueError(
                f"{name} of the transformer is {getattr(c, name)}, but this DiT knows {wanted} alone."
            )
    state = {}
    for ours, (first, *others) in places(c.num_layers).items():
        for part in [part for part in ("weight", "bias") if f"{first}.{part}" in theirs]:
            state[f"{ours}.{part}"] = one = theirs[f"{first}.{part}"]
            if not all(torch.equal(one, theirs[f"{other}.{part}"]) for other in others):
                raise ValueError(
                    f"the transformer's blocks differ in {ours}.{part}, of which this DiT has one for all: "
                    "it was trained in diffusers."
                )
    for i in range(c.num_layers):
        for part in ("weight", "bias"):
            three = [theirs[f"transformer_blocks.{i}.{name}.{part}"] for name in QKV]
            state[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(three)
    return assemble(state, c)


KNOWN = {
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
}


def assemble(
    state: dict[str, Tensor],  # by official names, without pos_embed
    c,  # configuration of diffusers' transformer
) -> DiT:
    "A DiT from renamed weights: the label table is cut to its classes, positions are computed."
    key = "y_embedder.embedding_table.weight"
    state[key] = trim_labels(state[key])
    rows, unlabelled = len(state[key]), len(state[key]) == 1 and not state[key].any()
    if unlabelled:
        del state[key]
    model = DiT(
        DiTConfig(
            input_size=c.sample_size,
            patch_size=c.patch_size,
            in_channels=c.in_channels,
            hidden_size=c.num_attention_heads * c.attention_head_dim,
            depth=c.num_layers,
            num_heads=c.num_attention_heads,
            num_classes=0 if unlabelled else max(rows - 1, 1),
            class_dropout_prob=0.1 if rows > 1 or unlabelled else 0.0,
            learn_sigma=(c.out_channels or c.in_channels) == 2 * c.in_channels,
        )
    )
    fill(model, {**state, "pos_embed": model.pos_embed.detach()}, "the transformer")
    return model.eval()


SAMPLERS = {"ddim": "DDIMScheduler", "ddpm": "DDPMScheduler", "dpm++": "DPMSolverMultistepScheduler"}


def make_scheduler(
    sampling: dict,  # see SAMPLING
    name: str = "ddim",  # ddim, ddpm or dpm++
    **changes,  # to the scheduler's own settings
):  # a scheduler of diffusers
    "A scheduler of diffusers with the noise that the model was trained with."
    import diffusers

    check_choice("scheduler", name, SAMPLERS)
    make_diffusion(sampling)  # complains where the process makes no sense
    steps, clip = sampling["num_timesteps"], bool(sampling["clip_x0"])
    settings = {"num_train_timesteps": steps, "prediction_type": "epsilon"}
    if sampling["schedule"] == "cosine":
        settings["beta_schedule"] = "squaredcos_cap_v2"
    else:
        settings |= {"beta_schedule": "linear", "beta_start": 0.1 / steps, "beta_end": 20 / steps}
    if name == "dpm++":  # dynamic thresholding with a ceiling of 1 is clipping
        settings |= {"thresholding": clip, "sample_max_value": 1.0, "algorithm_type": "dpmsolver++"}
        settings |= {"lambda_min_clipped": -5.1} if sampling["schedule"] == "cosine" else {}
    else:
        settings["clip_sample"] = clip
    if name == "ddpm":
        kinds = {"learned": "learned_range", "fixed_small": "fixed_small", "fixed_large": "fixed_large"}
        settings["variance_type"] = kinds[sampling["variance"]]
    return getattr(diffusers, SAMPLERS[name])(**{**settings, **changes})


def scheduler_sample(
    diffusion: Diffusion,  # the whole process that the model was trained with
    model: Callable,  # (x, t, y) -> (N, 2C, H, W), or Guided
    shape: tuple[int, ...],  # (N, C, H, W)
    y: Tensor | None = None,  # (N,) labels
    *,
    scheduler,  # any scheduler of diffusers that takes predicted noise
    steps: int = 20,  # how many
    x_T: Tensor | None = None,  # (N, C, H, W) where to start; drawn if not given
    generator: torch.Generator | None = None,  # for all that is drawn
    callback: Callable[[int, int, Tensor], None] | None = None,  # (i, t, x) after each step
    progress: bool = True,  # show a bar
    device: torch.device | str | None = None,  # if neither x_T nor y says it
    **options,  # for the scheduler's step, such as eta
) -> Tensor:  # (N, C, H, W)
    "Sample with a scheduler of diffusers. Clipping is the scheduler's own setting."
    check_run(diffusion, model, shape, y, x_T, None)
    with_variance = check_scheduler(scheduler, diffusion, shape[1])
    scheduler = type(scheduler).from_config(scheduler.config)  # a run changes it: leave the caller's alone
    device = run_device(diffusion, y, x_T, device)
    scheduler.set_timesteps(steps, device=device)
    times = scheduler.timesteps.round().long()  # some take steps in between: the model knows whole ones
    if hasattr(model, "prepare"):
        model = model.prepare(times, y)
    known = inspect.signature(scheduler.step).parameters
    if "generator" in known:
        options["generator"] = generator
    if "use_clipped_model_output" in known:  # DDIM: after clipping, derive the noise anew, as ours does
        options.setdefault("use_clipped_model_output", True)
    x = randn(shape, generator, device) if x_T is None else x_T
    x = x * scheduler.init_noise_sigma
    bar = tqdm(scheduler.timesteps, desc="sampling", disable=not show_bar(progress))
    with torch.no_grad():
        for i, step in enumerate(bar):
            scaled = scheduler.scale_model_input(x, step)
            output = model(scaled, times[i].expand(shape[0]), y).float()
            eps = output if with_variance else split_output(output, x)[0]
            x = scheduler.step(eps, step, x, **options).prev_sample
            if callback is not None:
                callback(i, int(times[i]), x)
    return x


def check_scheduler(scheduler, diffusion: Diffusion, channels: int) -> bool:
    "Whether the scheduler wants variance values too. Raises ValueError where it does not fit the model."
    settings, name = scheduler.config, type(scheduler).__name__
    if settings.get("prediction_type") != "epsilon" or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{name} does not take predicted noise: its prediction_type must be 'epsilon'.")
    theirs, ours = scheduler.alphas_cumprod.cpu().double(), diffusion.alphas_cumprod.cpu()
    if len(theirs) != len(ours) or not torch.allclose(theirs, ours, atol=1e-4):
        raise ValueError(
            f"{name} has another noise schedule than the model was trained with: build it with make_scheduler."
        )
    learned = str(settings.get("variance_type")).startswith("learned")
    if learned and not name.startswith("DDPM"):  # those cut the model's output to three channels
        raise ValueError(f"{name} cannot use a learned variance: set its variance_type to None.")
    return learned
