"""Memory and time of a training run, counted before it starts, and a plan that fits a GPU."""

from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

from dit_nb.config import DiTConfig
from dit_nb.cost import _MODULATION_VECTORS, cost
from dit_nb.errors import _check_choice, _check_number
from dit_nb.patchify import _height_width

__all__ = ["GPUS", "GPUSpec", "Memory", "advise", "sampling_time", "training_memory", "training_time"]

_USABLE_FRACTION = 0.9  # of a GPU's memory: the rest goes to the driver, libraries and fragmentation
_VAE_ENCODER_MACS = 136.4e9  # multiply-adds of Stable Diffusion's VAE encoder for a 256 x 256 image
_MIN_TOKENS_PER_PASS = 4096  # a large GPU idles with fewer: a rule of thumb
_BYTES_PER_ELEMENT = {"fp32": 4, "bf16": 2}  # inputs and outputs of matrix products
_BLOCK_PARTS = ("attention", "mlp", "cross-attention", "modulation", "layer norms")


def _context_tokens(config: DiTConfig) -> int:  # of t and y
    return 2 if config.num_classes else 1


def _context_bytes(config: DiTConfig, precision: str) -> int:
    "Bytes per element of the condition: labels are looked up in float32, and a sum with float32 is float32."
    return 4 if config.num_classes else _BYTES_PER_ELEMENT[precision]


def _block_tokens(config: DiTConfig) -> int:
    return prod(config.grid) + (_context_tokens(config) if config.block == "in_context" else 0)


def _block_activation_bytes(config: DiTConfig, precision: str = "bf16") -> dict[str, int]:
    """Count the bytes that autograd saves in a block, by part, for one image."""
    d, m, tokens = config.hidden_size, _BYTES_PER_ELEMENT[precision], _block_tokens(config)
    fields, c = _MODULATION_VECTORS[config.block], _context_bytes(config, precision)
    stream, product = 4 * tokens * d, m * tokens * d  # one vector per token, in either precision
    norm = stream + 8 * tokens  # its input; mean and deviation
    norm += stream + m * d if fields else 0  # modulation: the normalized tokens, 1 + scale
    gated = product if fields == 6 else 0  # what the gate multiplies
    parts = {
        "norms": 2 * norm,
        "attention": 5 * product + 4 * tokens * config.num_heads + gated,  # input, q, k, v, output
        "mlp": product + 2 * m * tokens * int(d * config.mlp_ratio) + gated,  # input, before and after GELU
        "condition": (m + (m * fields if gated else 0)) * d if fields else 0,  # SiLU of t + y, gates
    }
    if config.block == "cross_attention":
        keys = 2 if c == m else 3  # k and v; and the context, cast again in each block
        parts["norms"] += norm
        parts["attention"] += 3 * product + 4 * tokens * config.num_heads
        parts["attention"] += keys * m * _context_tokens(config) * d
    return parts


def _activation_bytes(
    config: DiTConfig, precision: str = "bf16", checkpointing: bool = False
) -> dict[str, int]:
    """Count the bytes that autograd saves in the model and the loss, by part, for one image."""
    d, m, T = config.hidden_size, _BYTES_PER_ELEMENT[precision], prod(config.grid)
    fields = _MODULATION_VECTORS[config.block]
    c, cross = _context_bytes(config, precision), config.block == "cross_attention"
    parts = {name: config.depth * size for name, size in _block_activation_bytes(config, precision).items()}
    if checkpointing:
        parts = {"block inputs": config.depth * 4 * _block_tokens(config) * d}
    pixels = config.in_channels * prod(_height_width(config.input_size))
    shared = not fields and (checkpointing or (cross and c == m))  # one context for all blocks
    final = 4 * _block_tokens(config) * d + 8 * T + m * T * d  # the norm's input, statistics; linear's input
    final += 4 * T * d + (c + 2 * m) * d if fields else 0  # modulation; t + y, the same for all blocks
    first = m * pixels + m * (256 + 2 * d) + c * shared * _context_tokens(config) * d
    loss = 16 * pixels + 8 if config.learn_sigma else 4 * pixels  # the bound saves three images more
    return {**parts, "first and last": final + first + 8 * (config.num_classes > 0), "loss": loss}


@dataclass(frozen=True)
class Memory:
    """Memory that training takes on one GPU. `copies` are bf16 weights, `buckets` those in which DDP reduces."""

    parts: dict[str, float]  # bytes of each part

    @property
    def total(self) -> float:
        """Sum of all parts: the peak if gradients are accumulated over several passes."""
        return sum(self.parts.values())

    @property
    def peak(self) -> float:
        """Peak with one backward pass per update: gradients replace activations, so only the larger counts."""
        transient = sum(self.parts[k] for k in ("copies", "activations", "workspace"))
        return self.total - min(transient, self.parts["gradients"])

    def _repr_markdown_(self) -> str:
        rows = [(k, f"{v / 1e9:.2f}") for k, v in self.parts.items()]
        rows.append(("**total**", f"**{self.total / 1e9:.2f}**"))
        return "| part | GB |\n|---|---:|\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def training_memory(
    config: DiTConfig,
    batch_size: int,
    precision: str = "bf16",
    checkpointing: bool = False,
    processes: int = 1,
    fsdp: bool = False,
) -> Memory:
    """Count the memory that one GPU needs to train a model.

    Args:
        config: shape of the model
        batch_size: images in one forward pass, over all processes
        precision: fp32 or bf16
        checkpointing: whether the blocks' activations are recomputed in the backward pass
        processes: number of GPUs that share the batch
        fsdp: whether they shard weights, gradients, moments and average as well

    Raises:
        UserError: if a number is not above 0, or the precision is unknown
    """
    _check_number("batch_size", batch_size, int, positive=True)
    _check_number("processes", processes, int, positive=True)
    _check_choice("precision", precision, tuple(_BYTES_PER_ELEMENT))
    counted, images, m = cost(config), ceil(batch_size / processes), _BYTES_PER_ELEMENT[precision]
    params, shards = counted.total_params, processes if fsdp else 1
    with_positions = params + prod(config.grid) * config.hidden_size
    copies = 2 * (params - counted.params["label"]) if precision == "bf16" else 0
    if shards > 1:  # two blocks at a time are gathered
        copies = 2 * m * sum(counted.params.get(k, 0) for k in _BLOCK_PARTS) // config.depth
    block = sum(_block_activation_bytes(config, precision).values())
    d = config.hidden_size
    gradient = _block_tokens(config) * (4 * d + m * int(d * config.mlp_ratio))
    parts = {
        "weights": 4 * with_positions / shards,
        "gradients": 4 * params / shards,
        "moments": 8 * params / shards,
        "average": 4 * with_positions / shards,
        "buckets": 4 * params if processes > shards else 0,
        "copies": copies,
        "activations": images * sum(_activation_bytes(config, precision, checkpointing).values()),
        "workspace": images * (block if checkpointing else gradient),
    }
    return Memory(parts)


@dataclass(frozen=True)
class GPUSpec:
    """A GPU, by its data sheet."""

    memory: float  # gigabytes (10^9 bytes)
    bf16: float | None  # peak in Tflop/s of dense bfloat16 matrix products; None without bfloat16
    fp32: float  # peak in Tflop/s in float32
    source: str  # where the numbers come from

    @property
    def precision(self) -> str:
        """The faster precision: bf16, or fp32 without bfloat16."""
        return "bf16" if self.bf16 else "fp32"

    @property
    def tflops(self) -> float:
        """Peak in that precision."""
        return self.bf16 or self.fp32


GPUS = {
    "RTX 3060": GPUSpec(12, 25.5, 12.7, "GA102 white paper: twice its float32 rate"),
    "T4": GPUSpec(16, None, 8.1, "T4 data sheet; no bfloat16; its float16 (65) is not counted"),
    "RTX 4090": GPUSpec(24, 165.2, 82.6, "Ada white paper, float32 accumulation"),
    "L4": GPUSpec(24, 121, 30.3, "L4 data sheet, half of the sparse rate"),
    "A100-40": GPUSpec(40, 312, 19.5, "A100 data sheet"),
    "A100-80": GPUSpec(80, 312, 19.5, "A100 data sheet"),
    "H100": GPUSpec(80, 989, 67, "H100 SXM data sheet, half of the sparse rate"),
    "H200": GPUSpec(141, 989, 67, "H200 SXM data sheet, half of the sparse rate"),
}


def _largest_batch(
    config: DiTConfig, gpu: GPUSpec, checkpointing: bool = False, processes: int = 1, fsdp: bool = False
) -> int:
    """Return how many images fit into one pass of one process, with gradients held; 0 if not even one does.

    Args:
        config: shape of the model
        gpu: the GPU that each process has
        checkpointing, processes, fsdp: as for `training_memory`
    """
    one, two = (
        training_memory(config, n * processes, gpu.precision, checkpointing, processes, fsdp).total
        for n in (1, 2)
    )
    return max(0, int((1e9 * _USABLE_FRACTION * gpu.memory - one) // (two - one)) + 1)


def training_time(
    config: DiTConfig,
    batch_size: int,
    steps: int,
    tflops: float,
    mfu: float = 0.4,
    checkpointing: bool = False,
) -> float:
    """Estimate the seconds of a training run: work divided by speed. Loading and encoding images is not included.

    Args:
        config: shape of the model
        batch_size: images per update
        steps: number of updates
        tflops: peak of all GPUs together, in Tflop/s
        mfu: model flops utilization, the share of the peak that is reached: an assumption
        checkpointing: whether the forward pass is done twice

    Raises:
        UserError: if a number is not above 0
    """
    _check_positive(batch_size=batch_size, steps=steps, tflops=tflops, mfu=mfu)
    passes = 4 if checkpointing else 3  # a backward pass is twice the work of a forward pass
    return 2 * cost(config).total_macs * passes * batch_size * steps / (tflops * 1e12 * mfu)


def sampling_time(
    config: DiTConfig, images: int, steps: int, tflops: float, mfu: float = 0.4, guidance: bool = True
) -> float:
    """Estimate the seconds of sampling: work divided by speed. The VAE's decoder is not included.

    Args:
        config: shape of the model
        images: number of images
        steps: steps of the sampler
        tflops: peak of all GPUs together, in Tflop/s
        mfu: model flops utilization, the share of the peak that is reached: an assumption
        guidance: whether each step needs the model with and without the label

    Raises:
        UserError: if a number is not above 0
    """
    _check_positive(images=images, steps=steps, tflops=tflops, mfu=mfu)
    return 2 * cost(config).total_macs * (1 + guidance) * images * steps / (tflops * 1e12 * mfu)


def _check_positive(**amounts: float) -> None:
    for name, value in amounts.items():
        _check_number(name, value, float, positive=True)


def _format_duration(seconds: float) -> str:
    """Format a duration in seconds, minutes, hours, days or years."""
    units = (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, size = next((u for u in units if seconds >= 2 * u[1]), units[-1])
    return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"


class _Plan(NamedTuple):
    """How to train with a batch size on some GPUs."""

    images: int  # images in one pass of one process
    passes: int  # passes per update; more than 1: accumulate gradients
    checkpointing: bool  # whether to use gradient checkpointing
    processes: int  # number of GPUs; more than 1: shard everything (FSDP)


def _plan_training(config: DiTConfig, gpu: GPUSpec, batch_size: int = 256) -> _Plan | None:
    """Return the cheapest plan that fits, or None if eight GPUs are too few.

    Args:
        config: shape of the model
        gpu: the kind of GPU
        batch_size: images per update
    """
    enough = ceil(_MIN_TOKENS_PER_PASS / prod(config.grid))
    options = ((1, False, enough), (1, True, 1), (2, True, 1), (4, True, 1), (8, True, 1))
    for processes, checkpointing, least in options:
        local_batch = ceil(batch_size / processes)
        fits = _largest_batch(config, gpu, checkpointing, processes, fsdp=processes > 1)
        if fits >= min(least, local_batch):
            counts = range(ceil(local_batch / fits), local_batch + 1)
            passes = next(k for k in counts if local_batch % k == 0)  # of equal size
            return _Plan(local_batch // passes, passes, checkpointing, processes)
    return None


def advise(config: DiTConfig, gpu: str, batch_size: int = 256, steps: int = 400_000, mfu: float = 0.4) -> str:
    """Describe the plan that fits a GPU, its memory, and how long it takes.

    Args:
        config: shape of the model
        gpu: name in `GPUS`
        batch_size: images per update
        steps: number of updates
        mfu: model flops utilization, the share of the peak that is reached: an assumption

    Raises:
        UserError: if the GPU is unknown
    """
    _check_choice("gpu", gpu, tuple(GPUS))
    spec = GPUS[gpu]
    plan = _plan_training(config, spec, batch_size)
    if plan is None:
        return f"Too large for eight {gpu}, even with one image each."
    n, fsdp = plan.processes, plan.processes > 1
    memory = training_memory(config, n * plan.images, spec.precision, plan.checkpointing, n, fsdp)
    seconds = training_time(config, batch_size, steps, n * spec.tflops, mfu, plan.checkpointing)
    how = "all at once"
    if plan.passes > 1:
        how = f"{plan.images} at a time, accumulated over {plan.passes} passes"
    how += f" on each of {n} GPUs, with everything sharded (FSDP)" if fsdp else ""
    saved = "with gradient checkpointing" if plan.checkpointing else "without gradient checkpointing"
    return (
        f"{batch_size} images per update on {'one' if n == 1 else n} {gpu} in {spec.precision}: {how}, {saved}. "
        f"That is {memory.total / 1e9:.0f} of {spec.memory} GB. {steps:,} updates take about "
        f"{_format_duration(seconds)} at {mfu:.0%} of the peak, {_format_duration(2 * seconds)} at half of that."
    )
