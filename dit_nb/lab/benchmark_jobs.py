"""What the benchmarks time: models, and a training step and a sampling run of ours and of diffusers."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.data import ImageSet
from dit_nb.errors import UserError
from dit_nb.guidance import Guided
from dit_nb.interop.diffusers import _transformer_config
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.sampling import ddpm_sample
from dit_nb.speed import InferenceModel, fast_cpu
from dit_nb.training import TrainConfig, Trainer

__all__ = []

_SMALL = dict(input_size=8, in_channels=1, hidden_size=128, depth=6, num_heads=4, num_classes=10)


_MODELS = {  # name -> model, images in a training step, images in a sampling run
    "digits/1": (DiTConfig(patch_size=1, **_SMALL), 128, 64),
    "digits/2": (DiTConfig(patch_size=2, **_SMALL), 128, 64),
    **{name: (DiTConfig.named(f"DiT-{name}"), 8, 4) for name in ("S/4", "S/2", "B/2", "XL/2")},
}


_GPU_BATCH = {"digits/1": 4096, "digits/2": 4096, "S/4": 1024, "S/2": 1024, "B/2": 512, "XL/2": 256}


_SAMPLING_STEPS, _CFG_SCALE = 10, 4.0


_VARIANTS = (  # code, precision, compiled
    "ours fp32",
    "ours bf16",
    "ours fp32 compiled",
    "ours bf16 compiled",
    "diffusers fp32",
    "diffusers bf16",
    "diffusers bf16 compiled",
)


def _random_images(config: DiTConfig, n: int) -> ImageSet:
    names = tuple(map(str, range(config.num_classes)))
    shape = (n, *config.image_shape)
    return ImageSet(torch.rand(shape) * 2 - 1, torch.randint(len(names), (n,)), names)


def _our_training(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "One step of our Trainer."
    settings = TrainConfig(steps=10**9, batch_size=n, precision=precision, compile=compiled)
    trainer = Trainer(DiT(config), Diffusion(), _random_images(config, 2 * n), settings)
    batches = trainer.batches()

    def step() -> None:
        with fast_cpu(trainer):  # as our commands train
            losses = trainer.step(next(batches))
        for loss in losses.values():
            loss.item()  # the baseline waits for its loss too

    return step


def _our_sampling(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "A guided sampling run of ours."
    model = Guided(InferenceModel(DiT(config).to(device), precision, compiled), _CFG_SCALE)
    diffusion = Diffusion().respaced(str(_SAMPLING_STEPS)).to(device)
    y = torch.randint(config.num_classes, (n,), device=device)
    return lambda: ddpm_sample(diffusion, model, (n, *config.image_shape), y, progress=False)


def _diffusers_model(config: DiTConfig, device: str, compiled: bool):
    "diffusers' DiT of the same shape."
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError:
        raise UserError("diffusers is missing, but is the baseline: pip install diffusers.") from None
    shape = _transformer_config(config)
    model = DiTTransformer2DModel(**shape, num_embeds_ada_norm=config.num_classes).to(device)
    if compiled:
        model.compile(dynamic=False)
    return model


def _diffusers_training(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "A training step with diffusers: squared error, AdamW, EMA parameter by parameter."
    from diffusers import DDPMScheduler

    model = _diffusers_model(config, device, compiled)
    average, scheduler = copy.deepcopy(model), DDPMScheduler()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    x, y = (a.to(device) for a in _random_images(config, n).get_batch(list(range(n))))

    def step() -> None:
        noise, t = torch.randn_like(x), torch.randint(1000, (n,), device=device)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            out = model(scheduler.add_noise(x, noise, t), timestep=t, class_labels=y).sample
        loss = F.mse_loss(out[:, : config.in_channels].float(), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, new in zip(average.parameters(), model.parameters()):
                mean.mul_(0.9999).add_(new, alpha=0.0001)
        loss.item()

    return step


def _diffusers_sampling(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "The loop of diffusers' pipeline, conditional and unconditional in one batch."
    from diffusers import DDPMScheduler

    model, channels = _diffusers_model(config, device, compiled).eval(), config.in_channels
    scheduler = DDPMScheduler(clip_sample=False)
    scheduler.set_timesteps(_SAMPLING_STEPS)
    y = torch.randint(config.num_classes, (n,), device=device)
    labels = torch.cat([y, torch.full_like(y, config.num_classes)])

    @torch.inference_mode()
    def run() -> None:
        x = torch.randn(n, channels, config.input_size, config.input_size, device=device)
        for t in scheduler.timesteps:
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                out = model(
                    torch.cat([x, x]), timestep=t.to(device).expand(2 * n), class_labels=labels
                ).sample
            cond, uncond = out[:, :channels].float().chunk(2)
            x = scheduler.step(uncond + _CFG_SCALE * (cond - uncond), t, x).prev_sample

    return run


_JOBS = {("ours", "train"): _our_training, ("ours", "sample"): _our_sampling}


_JOBS |= {("diffusers", "train"): _diffusers_training, ("diffusers", "sample"): _diffusers_sampling}


def _batch_size(name: str, job: str, device: str) -> int:
    "Images per call, if the user gives no number."
    _, for_training, for_sampling = _MODELS[name]
    if job == "train":
        return _GPU_BATCH[name] if device == "cuda" else for_training
    return for_sampling * (16 if device == "cuda" else 1)


def _matmul_flop(config: DiTConfig, n: int, job: str) -> float:
    "Multiplications and additions in the matrix products of one call."
    evaluations = 3 if job == "train" else 2 * _SAMPLING_STEPS
    return 2 * cost(config).total_macs * n * evaluations
