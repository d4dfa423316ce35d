"""Two programs, one machine, turn by turn. How `dit-nb bench` measures, and what its numbers may be used for."""

import copy
import json
import os
import resource
import sys
from collections.abc import Callable
from datetime import date
from importlib.resources import files
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
from dit_nb.interop.diffusers import transformer_shape
from dit_nb.lab.profiling import matmul_rate, timed
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.sampling import ddpm_sample
from dit_nb.speed import InferenceModel, fast_float32_matmul, keep_freed_memory
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import check_choice, show_bar

SMALL = dict(input_size=8, in_channels=1, hidden_size=128, depth=6, num_heads=4, num_classes=10)


SUBJECTS = {  # name -> model, images in a training step, images in a sampling run
    "digits/1": (DiTConfig(patch_size=1, **SMALL), 128, 64),
    "digits/2": (DiTConfig(patch_size=2, **SMALL), 128, 64),
    **{name: (DiTConfig.named(f"DiT-{name}"), 8, 4) for name in ("S/4", "S/2", "B/2", "XL/2")},
}


ON_GPU = {"digits/1": 4096, "digits/2": 4096, "S/4": 1024, "S/2": 1024, "B/2": 512, "XL/2": 256}


SAMPLING_STEPS, CFG_SCALE = 10, 4.0


ARMS = (  # whose, in which precision, compiled
    "ours fp32",
    "ours bf16",
    "ours fp32 compiled",
    "ours bf16 compiled",
    "peer fp32",
    "peer bf16",
    "peer bf16 compiled",
)


def random_images(config: DiTConfig, n: int) -> ImageSet:
    "Noise with labels: speed does not depend on what is in a picture."
    names = tuple(map(str, range(config.num_classes)))
    shape = (n, config.in_channels, config.input_size, config.input_size)
    return ImageSet(torch.rand(shape) * 2 - 1, torch.randint(len(names), (n,)), names)


def our_training(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "One step of a Trainer: draw, predict, step, average."
    settings = TrainConfig(steps=10**9, batch_size=n, precision=precision, compile=compiled)
    trainer = Trainer(DiT(config), Diffusion(), random_images(config, 2 * n), settings)
    batches = trainer.batches()

    def step() -> None:
        trainer.train_step(*next(batches))
        trainer.progress.step += 1

    return step


def our_sampling(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "A guided run of a few steps."
    model = Guided(InferenceModel(DiT(config).to(device), precision, compiled), CFG_SCALE)
    diffusion = Diffusion().respaced(str(SAMPLING_STEPS)).to(device)
    shape = (n, config.in_channels, config.input_size, config.input_size)
    y = torch.randint(config.num_classes, (n,), device=device)
    keep_freed_memory(device)

    def run() -> None:
        with fast_float32_matmul(device):  # both as `sample_images` does
            ddpm_sample(diffusion, model, shape, y, progress=False)

    return run


def peer_model(config: DiTConfig, device: str, compiled: bool):
    "diffusers' DiT of the same shape."
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError:
        raise ValueError("peer is 'diffusers', but that package is missing: pip install diffusers.") from None
    shape = transformer_shape(config)
    model = DiTTransformer2DModel(**shape, num_embeds_ada_norm=config.num_classes).to(device)
    if compiled:
        model.compile(dynamic=False)
    return model


def peer_training(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "Squared error, AdamW, and an average that walks over the parameters."
    from diffusers import DDPMScheduler

    model = peer_model(config, device, compiled)
    average, scheduler = copy.deepcopy(model), DDPMScheduler()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    x, y = (a.to(device) for a in random_images(config, n).__getitems__(list(range(n))))

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


def peer_sampling(config: DiTConfig, n: int, device: str, precision: str, compiled: bool) -> Callable:
    "The loop of its pipeline, with labels and without in one batch."
    from diffusers import DDPMScheduler

    model, channels = peer_model(config, device, compiled).eval(), config.in_channels
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


JOBS = {("ours", "train"): our_training, ("ours", "sample"): our_sampling}


JOBS |= {("peer", "train"): peer_training, ("peer", "sample"): peer_sampling}


def contestant(pipe, arm: str, job: str, config: DiTConfig, n: int, device: str) -> None:
    "What runs in a contestant's process: build, warm up, then answer turns."
    try:
        who, precision, *rest = arm.split()
        if device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"  # also where there is a GPU
        torch.manual_seed(0)
        run = JOBS[who, job](config, n, device, precision, bool(rest))
        for _ in range(2):
            run()
        make_room(device)
        pipe.send("ready")
        rates, dtype = [], {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        while seconds := pipe.recv():
            with fast_float32_matmul(
                device
            ):  # the roof is the machine's, whichever road the contestant takes
                rates.append(matmul_rate(dtype, device, 8192 if device == "cuda" else 2048, repeats=2))
            times = []
            while sum(times) < seconds or len(times) < 3:
                times.append(timed(run, device))
            make_room(device)
            pipe.send(times)
        pipe.send((max(rates), peak_memory(device)))
    except Exception as error:  # told, not lost in a process that nobody sees
        pipe.send(error if isinstance(error, ValueError) else ValueError(f"{arm} failed: {error!r}"[:400]))


def make_room(device: str) -> None:
    "Give back what a card's memory is not needed for between turns: the next contestant needs it."
    if device == "cuda":
        torch.cuda.empty_cache()


def peak_memory(device: str) -> float:  # GB
    "The most that this process has held: of the card, or of the machine."
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def work(config: DiTConfig, n: int, job: str) -> float:  # operations of one call
    "Multiplications and additions in the matrix products of one call."
    evaluations = 3 if job == "train" else 2 * SAMPLING_STEPS
    return 2 * cost(config).total_macs * n * evaluations


def race(
    subject: str,  # one of SUBJECTS
    job: str = "train",  # or sample
    arms: tuple[str, ...] = ARMS[:2] + ARMS[4:5],
    rounds: int = 5,
    seconds: float = 1.0,  # length of a turn
    device: str = "cpu",
    batch: int | None = None,  # images, in place of the subject's own number
    progress: bool = True,
) -> list[dict]:  # one row for each arm
    "Turn by turn, each in its own process. Ratios are to the first arm that is the peer's, or to the first."
    check_choice("config", subject, SUBJECTS)
    for arm in arms:
        check_choice("arm", arm, ARMS)
    config, for_training, for_sampling = SUBJECTS[subject]
    n = batch or (ON_GPU[subject] if device == "cuda" else for_training)
    n = n if job == "train" else batch or for_sampling * (16 if device == "cuda" else 1)
    crew = []
    try:
        for arm in tqdm(arms, desc=f"{subject} {job}: warming up", disable=not show_bar(progress)):
            crew.append(enter(arm, job, config, n, device))
            answer(*crew[-1], arm)
        turns = [
            [turn(*member, arm, seconds) for arm, member in zip(arms, crew)]
            for _ in tqdm(range(rounds), desc=f"{subject} {job}", disable=not show_bar(progress))
        ]
        ends = [turn(*member, arm, 0) for arm, member in zip(arms, crew)]
        for _, process in crew:
            process.join(10)  # who is killed leaves semaphores behind
    finally:
        for _, process in crew:
            process.kill()
    roofs = {
        p: max(rate for arm, (rate, _) in zip(arms, ends) if p in arm) for p in {a.split()[1] for a in arms}
    }
    return [row(subject, job, arms, i, turns, roofs, ends[i][1], n, config, device) for i in range(len(arms))]


def enter(*what) -> tuple:  # pipe, process
    "Start a contestant; it answers when it is warm."
    context = get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=contestant, args=(other, *what), daemon=True)
    process.start()
    return pipe, process


def turn(pipe, process, arm: str, seconds: float):
    "Give the word, and wait for the answer."
    pipe.send(seconds)
    return answer(pipe, process, arm)


def answer(pipe, process, arm: str):
    "What a contestant says; its mistake is raised here."
    while not pipe.poll(1):
        if not process.is_alive():
            raise ValueError(f"{arm} ended with exit code {process.exitcode}: it may have run out of memory.")
    said = pipe.recv()
    if isinstance(said, ValueError):
        raise said
    return said


def row(subject, job, arms, i, turns, roofs, memory, n, config, device) -> dict:
    "What is known about one arm after the race."
    rate = roofs[arms[i].split()[1]]  # the fastest that anyone saw in this precision
    base = next((i for i, arm in enumerate(arms) if arm.startswith("peer")), 0)
    own = [1000 * median(each[i]) for each in turns]
    ratios = [median(each[base]) / median(each[i]) for each in turns]
    ms = median(own)
    gflops = work(config, n, job) / ms / 1e6
    return {
        "config": subject,
        "job": job,
        "arm": arms[i],
        "batch": n,
        "ms": ms,
        "ms_rounds": own,
        "images_per_s": 1000 * n / ms,
        "ratio_to": arms[base],
        "ratio": median(ratios),
        "ratio_rounds": ratios,
        "gflops": gflops,
        "matmul_gflops": rate,
        "utilisation": gflops / rate,
        "peak_gb": memory,
        "device": device_name(device),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def device_name(device: str) -> str:
    "What a card or the processor calls itself, and what of the processor may be used."
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


HEAD = ("config", "job", "arm", "ms", "images/s", "ratio (rounds)", "of the roof", "peak GB")


def results_table(rows: list[dict]) -> str:
    "Rows of a race as a Markdown table."
    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---|" + "---:|" * 5]
    for r in rows:
        spread = f"{r['ratio']:.2f} ({min(r['ratio_rounds']):.2f} to {max(r['ratio_rounds']):.2f})"
        cells = (
            r["config"],
            f"{r['job']}, {r['batch']}",
            r["arm"],
            f"{r['ms']:.1f}",
            f"{r['images_per_s']:.1f}",
        )
        lines.append(
            "| " + " | ".join((*cells, spread, f"{r['utilisation']:.0%}", f"{r['peak_gb']:.1f}")) + " |"
        )
    return "\n".join(lines)


def load_results(name: str) -> list[dict]:
    "Rows that come with the package: measured once, on the machine that they name."
    return json.loads((files("dit_nb.lab") / "results" / f"{name}.json").read_text(encoding="utf-8"))


def plot_bench(rows: list[dict]):
    "For each subject and job, how many times as fast as the peer each arm is."
    from dit_nb.visual import COLORS, figure

    groups = list(dict.fromkeys((r["config"], r["job"]) for r in rows))
    fig, axes = figure(1, 1, (9, 1 + 0.28 * len(rows)))
    ax, place, ticks = axes[0, 0], 0.0, []
    for group in groups:
        for r in (r for r in rows if (r["config"], r["job"]) == group):
            color = COLORS["grey"] if r["arm"].startswith("peer") else COLORS["gate"]
            low, high = min(r["ratio_rounds"]), max(r["ratio_rounds"])
            ax.barh(place, r["ratio"], color=color, alpha=1 if "bf16" in r["arm"] else 0.5)
            ax.plot([low, high], [place, place], color="black", lw=1)
            if high > 6:  # a neighbour of the machine was busy for a round; the bar is the median
                ax.set_xlim(0, 6)
            ticks.append((place, f"{group[0]} {group[1]}: {r['arm']}"))
            place += 1
        place += 0.6
    ax.axvline(1, color="black", lw=0.8, ls=":")
    ax.set_yticks([p for p, _ in ticks], [text for _, text in ticks], fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel=f"times as fast as {rows[0]['ratio_to']}; the line is the spread over rounds")
    fig.words = "; ".join(f"{r['config']} {r['job']} {r['arm']}: {r['ratio']:.2f}" for r in rows)
    return fig


BASE = dict(input_size=16, patch_size=2, in_channels=4, hidden_size=192, depth=6, num_heads=6, num_classes=10)


GROWTH = {  # what grows -> settings; 64 tokens, width 192, 6 blocks and 16 images are where all lines meet
    "tokens": [dict(input_size=s) for s in (8, 16, 24, 32)],
    "width": [dict(hidden_size=d) for d in (96, 192, 384, 576)],
    "depth": [dict(depth=d) for d in (3, 6, 12, 24)],
    "batch": [dict(batch=n) for n in (4, 8, 16, 32, 64)],
}


def growth(device: str = "cpu", precision: str = "fp32", progress: bool = True) -> list[dict]:
    "Step time and memory of real training steps, one axis at a time."
    rows, runs = [], [(axis, change) for axis, changes in GROWTH.items() for change in changes]
    for axis, change in tqdm(runs, desc="growth", disable=not show_bar(progress)):
        settings = {**BASE, **change}
        n = settings.pop("batch", 16)
        config = DiTConfig(**settings)
        pipe, process = enter(f"ours {precision}", "train", config, n, device)
        try:
            answer(pipe, process, axis)
            times = turn(pipe, process, axis, 1.5)
            _, memory = turn(pipe, process, axis, 0)
        finally:
            process.kill()
        tokens = (config.input_size // config.patch_size) ** 2
        at = {"tokens": tokens, "width": config.hidden_size, "depth": config.depth, "batch": n}
        known = {
            "date": date.today().isoformat(),
            "axis": axis,
            "at": at[axis],
            "ms": 1000 * min(times),
            "peak_gb": memory,
        }
        known |= {"gflop": work(config, n, "train") / 1e9, "parameters": cost(config).total_params}
        rows.append({**known, "precision": precision, "device": device_name(device)})
    return rows


def curves(
    device: str = "cpu",
    steps: int = 1000,
    width: int = 384,  # DiT-S; its 12 blocks are for a GPU
    depth: int = 12,
    progress: bool = True,
) -> list[dict]:  # precision, compiled, losses, ...
    "Losses of one training run on the digits, with one seed and one luck, in float32 and in bfloat16."
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # also where there is a GPU
    config, rows = DiTConfig(**SMALL | dict(patch_size=1, hidden_size=width, depth=depth, num_heads=6)), []
    arms = [("fp32", False), ("bf16", False), ("bf16", True)]
    for precision, compiled in tqdm(arms, desc="curves", disable=not show_bar(progress)):
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


def plot_growth(rows: list[dict]):
    "Time and memory against tokens, width, depth and batch, beside what is to be expected."
    from dit_nb.visual import COLORS, figure

    axes_names = list(GROWTH)
    fig, axes = figure(2, len(axes_names), (11, 5))
    for column, axis in enumerate(axes_names):
        part = [r for r in rows if r["axis"] == axis]
        at, ms, gb = ([r[k] for r in part] for k in ("at", "ms", "peak_gb"))
        middle = next(
            r for r in part if r["at"] == {"tokens": 64, "width": 192, "depth": 6, "batch": 16}[axis]
        )
        expected = [r["gflop"] / middle["gflop"] * middle["ms"] for r in part]
        axes[0, column].loglog(at, ms, "o-", color=COLORS["gate"], label="measured")
        axes[0, column].loglog(at, expected, "--", color=COLORS["grey"], label="as `cost` grows")
        axes[1, column].plot(at, gb, "o-", color=COLORS["x_t"])
        axes[0, column].minorticks_off()
        axes[0, column].set_xticks(at, at, fontsize=8)
        axes[0, column].set_yticks(ms[::2], [f"{m:.0f}" for m in ms[::2]], fontsize=8)
        axes[0, column].set(title=axis)
        axes[1, column].set(xlabel=axis, ylim=(0, None))
    axes[0, 0].set(ylabel="ms for a step")
    axes[1, 0].set(ylabel="peak memory, GB")
    axes[0, 0].legend(fontsize=8)
    fig.words = "Step time and peak memory: " + "; ".join(
        f"{r['axis']} {r['at']}: {r['ms']:.0f} ms" for r in rows
    )
    return fig
