"""Benchmarks beside diffusers: each variant in its own process, timed in interleaved rounds."""

import copy
import os
import resource
import sys
from collections.abc import Callable
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.data import ImageSet, digits
from dit_nb.guidance import Guided
from dit_nb.interop.diffusers import _transformer_config
from dit_nb.lab.profiling import matmul_gflops, time_call
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.sampling import ddpm_sample
from dit_nb.speed import InferenceModel, fast_float32_matmul, keep_freed_memory
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import _bar_visible, _check_choice

__all__ = [
    "MODELS",
    "VARIANTS",
    "benchmark",
    "benchmark_growth",
    "loss_curves",
]

_SMALL = dict(input_size=8, in_channels=1, hidden_size=128, depth=6, num_heads=4, num_classes=10)


MODELS = {  # name -> model, images in a training step, images in a sampling run
    "digits/1": (DiTConfig(patch_size=1, **_SMALL), 128, 64),
    "digits/2": (DiTConfig(patch_size=2, **_SMALL), 128, 64),
    **{name: (DiTConfig.named(f"DiT-{name}"), 8, 4) for name in ("S/4", "S/2", "B/2", "XL/2")},
}


_GPU_BATCH = {"digits/1": 4096, "digits/2": 4096, "S/4": 1024, "S/2": 1024, "B/2": 512, "XL/2": 256}


SAMPLING_STEPS, CFG_SCALE = 10, 4.0


VARIANTS = (  # code, precision, compiled
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
    shape = (n, config.in_channels, config.input_size, config.input_size)
    return ImageSet(torch.rand(shape) * 2 - 1, torch.randint(len(names), (n,)), names)


def _our_training(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "One step of our Trainer."
    settings = TrainConfig(steps=10**9, batch_size=n, precision=precision, compile=compiled)
    trainer = Trainer(DiT(config), Diffusion(), _random_images(config, 2 * n), settings)
    batches = trainer.batches()

    def step() -> None:
        trainer.train_step(*next(batches))
        trainer.progress.step += 1

    return step


def _our_sampling(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "A guided sampling run of ours."
    model = Guided(InferenceModel(DiT(config).to(device), precision, compiled), CFG_SCALE)
    diffusion = Diffusion().respaced(str(SAMPLING_STEPS)).to(device)
    shape = (n, config.in_channels, config.input_size, config.input_size)
    y = torch.randint(config.num_classes, (n,), device=device)
    keep_freed_memory(device)

    def run() -> None:
        with fast_float32_matmul(device):
            ddpm_sample(diffusion, model, shape, y, progress=False)

    return run


def _diffusers_model(config: DiTConfig, device: str, compiled: bool):
    "diffusers' DiT of the same shape."
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError:
        raise ValueError("diffusers is missing, but is the baseline: pip install diffusers.") from None
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
    x, y = (a.to(device) for a in _random_images(config, n).__getitems__(list(range(n))))

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
    scheduler.set_timesteps(SAMPLING_STEPS)
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
            x = scheduler.step(uncond + CFG_SCALE * (cond - uncond), t, x).prev_sample

    return run


_JOBS = {("ours", "train"): _our_training, ("ours", "sample"): _our_sampling}


_JOBS |= {("diffusers", "train"): _diffusers_training, ("diffusers", "sample"): _diffusers_sampling}


def _worker(pipe, variant: str, job: str, config: DiTConfig, n: int, device: str) -> None:
    "Main function of a worker process: build, warm up, then time a round at each request."
    try:
        code, precision, *rest = variant.split()
        if device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"  # even if there is a GPU
        torch.manual_seed(0)
        run = _JOBS[code, job](config, n, device, precision, bool(rest))
        for _ in range(2):
            run()
        _empty_cache(device)
        pipe.send("ready")
        rates, dtype = [], {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        while seconds := pipe.recv():
            with fast_float32_matmul(device):  # peak throughput on the fastest backend, for all variants
                rates.append(matmul_gflops(dtype, device, 8192 if device == "cuda" else 2048, repeats=2))
            times = []
            while sum(times) < seconds or len(times) < 3:
                times.append(time_call(run, device))
            _empty_cache(device)
            pipe.send(times)
        pipe.send((max(rates), _peak_memory(device)))
    except Exception as error:  # raised in the main process
        pipe.send(
            error if isinstance(error, ValueError) else ValueError(f"{variant} failed: {error!r}"[:400])
        )


def _empty_cache(device: str) -> None:
    "Release cached GPU memory between rounds, for the other workers."
    if device == "cuda":
        torch.cuda.empty_cache()


def _peak_memory(device: str) -> float:  # GB
    "Peak memory of this process: on the GPU, or in RAM."
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _matmul_flop(config: DiTConfig, n: int, job: str) -> float:
    "Multiplications and additions in the matrix products of one call."
    evaluations = 3 if job == "train" else 2 * SAMPLING_STEPS
    return 2 * cost(config).total_macs * n * evaluations


def benchmark(
    name: str,
    job: str = "train",
    variants: tuple[str, ...] = VARIANTS[:2] + VARIANTS[4:5],
    rounds: int = 5,
    seconds: float = 1.0,
    device: str = "cpu",
    batch: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """Time variants in interleaved rounds, each in its own process, so that a busy machine disturbs all alike.

    Args:
        name: a key of MODELS
        job: train or sample
        variants: of VARIANTS; ratios are to the first one of diffusers, or else to the first
        rounds: how often each variant is timed
        seconds: length of one variant's part of a round
        device: cpu or cuda
        batch: images per call; default: the model's own number
        progress: show a progress bar

    Returns:
        one row per variant: milliseconds, ratios by round, utilization, peak memory, device

    Raises:
        ValueError: if a name is unknown, or a worker fails
    """
    _check_choice("config", name, MODELS)
    for variant in variants:
        _check_choice("variant", variant, VARIANTS)
    config, n = MODELS[name][0], batch or _batch_size(name, job, device)
    workers = []
    try:
        for variant in tqdm(variants, desc=f"{name} {job}: warm-up", disable=not _bar_visible(progress)):
            workers.append(_start(variant, job, config, n, device))
            _receive(*workers[-1], variant)
        times = [
            [_request(*worker, variant, seconds) for variant, worker in zip(variants, workers)]
            for _ in tqdm(range(rounds), desc=f"{name} {job}", disable=not _bar_visible(progress))
        ]
        ends = [_request(*worker, variant, 0) for variant, worker in zip(variants, workers)]
        for _, process in workers:
            process.join(10)  # a killed process leaves semaphores behind
    finally:
        for _, process in workers:
            process.kill()
    known = {"config": name, "job": job, "batch": n, "device": device_name(device)}
    known |= {"torch": torch.__version__, "date": date.today().isoformat()}
    flop = _matmul_flop(config, n, job)
    return [known | _row(variants, i, times, ends, flop, n) for i in range(len(variants))]


def _batch_size(name: str, job: str, device: str) -> int:
    "Images per call, if the user gives no number."
    _, for_training, for_sampling = MODELS[name]
    if job == "train":
        return _GPU_BATCH[name] if device == "cuda" else for_training
    return for_sampling * (16 if device == "cuda" else 1)


def _start(*arguments) -> tuple:
    "Start a worker: (pipe, process). It sends a message when it is warm."
    context = get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_worker, args=(other, *arguments), daemon=True)
    process.start()
    return pipe, process


def _request(pipe, process, variant: str, seconds: float):
    "Ask a worker for a round, and wait for its times; 0 seconds ends it."
    pipe.send(seconds)
    return _receive(pipe, process, variant)


def _receive(pipe, process, variant: str):
    "The next message of a worker; an error in it is raised here."
    while not pipe.poll(1):
        if not process.is_alive():
            code = process.exitcode
            raise ValueError(f"{variant} ended with exit code {code}: it may have run out of memory.")
    message = pipe.recv()
    if isinstance(message, ValueError):
        raise message
    return message


def _row(variants: tuple, i: int, times: list, ends: list, flop: float, n: int) -> dict:
    "Figures of variant i: `times` by round and variant, `ends` with peak throughput and memory."
    precision = variants[i].split()[1]
    peak = max(rate for variant, (rate, _) in zip(variants, ends) if precision in variant)
    base = next((k for k, variant in enumerate(variants) if variant.startswith("diffusers")), 0)
    own = [1000 * median(each[i]) for each in times]
    ratios = [median(each[base]) / median(each[i]) for each in times]
    ms = median(own)
    gflops = flop / ms / 1e6
    row = {"variant": variants[i], "ms": ms, "ms_rounds": own, "images_per_s": 1000 * n / ms}
    row |= {"ratio_to": variants[base], "ratio": median(ratios), "ratio_rounds": ratios}
    row |= {"gflops": gflops, "matmul_gflops": peak, "utilization": gflops / peak}
    return {**row, "peak_gb": ends[i][1]}


def device_name(device: str) -> str:
    """Name of the GPU; or of the CPU, with its threads and instruction set.

    Args:
        device: cpu or cuda
    """
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = (
        [s.split(":", 1)[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")]
        if info.exists()
        else []
    )
    caps = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads, {caps}"


_BASE = dict(
    input_size=16, patch_size=2, in_channels=4, hidden_size=192, depth=6, num_heads=6, num_classes=10
)


_GROWTH = {  # axis -> settings; all axes share 64 tokens, width 192, 6 blocks and 16 images
    "tokens": [dict(input_size=s) for s in (8, 16, 24, 32)],
    "width": [dict(hidden_size=d) for d in (96, 192, 384, 576)],
    "depth": [dict(depth=d) for d in (3, 6, 12, 24)],
    "batch": [dict(batch=n) for n in (4, 8, 16, 32, 64)],
}


def benchmark_growth(device: str = "cpu", precision: str = "fp32", progress: bool = True) -> list[dict]:
    """Time and memory of a training step against tokens, width, depth and batch size, one axis at a time.

    Args:
        device: cpu or cuda
        precision: fp32 or bf16
        progress: show a progress bar
    """
    rows, runs = [], [(axis, change) for axis, changes in _GROWTH.items() for change in changes]
    for axis, change in tqdm(runs, desc="growth", disable=not _bar_visible(progress)):
        settings = {**_BASE, **change}
        n = settings.pop("batch", 16)
        config = DiTConfig(**settings)
        pipe, process = _start(f"ours {precision}", "train", config, n, device)
        try:
            _receive(pipe, process, axis)
            times = _request(pipe, process, axis, 1.5)
            _, memory = _request(pipe, process, axis, 0)
        finally:
            process.kill()
        tokens = (config.input_size // config.patch_size) ** 2
        at = {"tokens": tokens, "width": config.hidden_size, "depth": config.depth, "batch": n}
        known = {"date": date.today().isoformat(), "axis": axis, "at": at[axis]}
        known |= {"ms": 1000 * min(times), "peak_gb": memory}
        known |= {"gflop": _matmul_flop(config, n, "train") / 1e9, "parameters": cost(config).total_params}
        rows.append({**known, "precision": precision, "device": device_name(device)})
    return rows


def loss_curves(
    device: str = "cpu",
    steps: int = 1000,
    width: int = 384,
    depth: int = 12,
    progress: bool = True,
) -> list[dict]:
    """Losses of one training run on the digits with the same seed, in float32, bfloat16, and bfloat16 compiled.

    Args:
        device: cpu or cuda
        steps: number of updates
        width: hidden size; default: DiT-S
        depth: number of blocks; default: DiT-S
        progress: show a progress bar
    """
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # even if there is a GPU
    config, rows = DiTConfig(**_SMALL | dict(patch_size=1, hidden_size=width, depth=depth, num_heads=6)), []
    runs = [("fp32", False), ("bf16", False), ("bf16", True)]
    for precision, compiled in tqdm(runs, desc="curves", disable=not _bar_visible(progress)):
        torch.manual_seed(0)
        settings = TrainConfig(steps=steps, batch_size=128, precision=precision, compile=compiled)
        trainer = Trainer(DiT(config), Diffusion(bins=17), digits().train, settings)
        batches, losses = trainer.batches(), []
        for _ in range(steps):
            losses.append(trainer.train_step(*next(batches))["mse"])
            trainer.progress.step += 1
        known = {"width": width, "depth": depth, "batch": 128, "seed": 0, "date": date.today().isoformat()}
        known |= {"device": device_name(device), "torch": torch.__version__}
        rows.append(
            {"precision": precision, "compiled": compiled, "mse": [round(x, 6) for x in losses], **known}
        )
    return rows
