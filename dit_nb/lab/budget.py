"""Will the model fit on your card, how long will it train, and what helps when it does not fit? Counted before a run is started."""

from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

from dit_nb.config import DiTConfig
from dit_nb.cost import MODULATIONS, cost
from dit_nb.patchify import pair
from dit_nb.training import check_number
from dit_nb.utils import check_choice

BYTES = {"fp32": 4, "bf16": 2}  # of a number that goes through a matrix product


def context_tokens(config: DiTConfig) -> int:
    "Tokens that t and y make."
    return 2 if config.num_classes else 1


def context_bytes(config: DiTConfig, precision: str) -> int:
    "Of a number in these: labels are looked up in float32, and what is added to that is float32."
    return 4 if config.num_classes else BYTES[precision]


def block_tokens(config: DiTConfig) -> int:
    "Tokens that go through a block."
    return prod(config.grid) + (context_tokens(config) if config.block == "in_context" else 0)


def block_activations(
    config: DiTConfig,
    precision: str = "bf16",  # fp32 or bf16
) -> dict[str, int]:  # part -> bytes that one block keeps for one image
    "What autograd keeps of a block until the backward pass."
    d, m, tokens = config.hidden_size, BYTES[precision], block_tokens(config)
    fields, context, c = MODULATIONS[config.block], context_tokens(config), context_bytes(config, precision)
    stream, product = 4 * tokens * d, m * tokens * d  # one vector for each token, in either kind
    norm = stream + 8 * tokens  # its input; mean and deviation
    norm += stream + m * d if fields else 0  # modulation: the normalised tokens, 1 + scale
    gated = product if fields == 6 else 0  # what the gate multiplies
    parts = {
        "norms": 2 * norm,
        "attention": 5 * product + 4 * tokens * config.num_heads + gated,  # input, q, k, v, output
        "mlp": product + 2 * m * tokens * int(d * config.mlp_ratio) + gated,  # input, before and after GELU
        "condition": (c + m + (m * fields if gated else 0)) * d if fields else 0,  # t + y, SiLU of it, gates
    }
    if config.block == "cross_attention":
        keys = 2 if c == m else 3  # k and v; and the context, cast anew in each block
        parts["norms"] += norm
        parts["attention"] += 3 * product + 4 * tokens * config.num_heads + keys * m * context * d
    return parts


def activations(
    config: DiTConfig,
    precision: str = "bf16",  # fp32 or bf16
    checkpointing: bool = False,  # keep only the input of each block
) -> dict[str, int]:  # part -> bytes for one image
    "What autograd keeps of the whole model and the loss."
    d, m, T, fields = config.hidden_size, BYTES[precision], prod(config.grid), MODULATIONS[config.block]
    c, cross = context_bytes(config, precision), config.block == "cross_attention"
    parts = {name: config.depth * size for name, size in block_activations(config, precision).items()}
    if checkpointing:
        told = (c + m + m * fields) * d if fields else 0  # t + y, SiLU of it, all fields
        parts = {
            "block inputs": config.depth * 4 * block_tokens(config) * d,
            "condition": config.depth * told,
        }
    pixels = config.in_channels * prod(pair(config.input_size))
    shared = not fields and (checkpointing or (cross and c == m))  # one context for all blocks
    final = 4 * block_tokens(config) * d + 8 * T + m * T * d  # the norm's input, statistics; linear's input
    final += 4 * T * d + (c + 2 * m) * d if fields else 0  # modulation and its condition
    first = m * pixels + m * (256 + 2 * d) + c * shared * context_tokens(config) * d
    loss = 16 * pixels + 8 if config.learn_sigma else 4 * pixels  # the bound keeps three images more
    return {**parts, "first and last": final + first + 8 * (config.num_classes > 0), "loss": loss}


@dataclass(frozen=True)
class Memory:
    "Bytes on one card, by what they are for."

    parts: dict[str, float]

    @property
    def total(self) -> float:
        "All parts at once: what accumulating gradients needs."
        return sum(self.parts.values())

    @property
    def peak(self) -> float:
        "One backward pass for each update: gradients arrive as activations leave, so the larger counts."
        passing = sum(self.parts[k] for k in ("copies", "activations", "workspace"))
        return self.total - min(passing, self.parts["gradients"])

    def _repr_markdown_(self) -> str:
        rows = [(k, f"{v / 1e9:.2f}") for k, v in self.parts.items()] + [
            ("**total**", f"**{self.total / 1e9:.2f}**")
        ]
        return "| part | GB |\n|---|---:|\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def training_memory(
    config: DiTConfig,
    batch_size: int,  # images in one forward pass, over all processes
    precision: str = "bf16",  # fp32 or bf16
    checkpointing: bool = False,  # compute the inside of blocks twice
    processes: int = 1,  # cards that share the batch
    fsdp: bool = False,  # and share weights, gradients, moments and average too
) -> Memory:
    "What one card must hold to train a model."
    check_number("batch_size", batch_size, int, above_zero=True)
    check_number("processes", processes, int, above_zero=True)
    check_choice("precision", precision, tuple(BYTES))
    counted, images, m = cost(config), ceil(batch_size / processes), BYTES[precision]
    params, shards = counted.total_params, processes if fsdp else 1
    with_positions = params + prod(config.grid) * config.hidden_size
    copies = 2 * (params - counted.params["label"]) if precision == "bf16" else 0
    if shards > 1:  # two blocks at a time are gathered, whole
        copies = 2 * m * sum(counted.params.get(k, 0) for k in BLOCK_PARTS) // config.depth
    block = sum(block_activations(config, precision).values())
    moment = block_tokens(config) * (4 * config.hidden_size + m * int(config.hidden_size * config.mlp_ratio))
    parts = {
        "weights": 4 * with_positions / shards,
        "gradients": 4 * params / shards,
        "moments": 8 * params / shards,
        "average": 4 * with_positions / shards,
        "buckets": 4 * params if processes > shards else 0,
        "copies": copies,
        "activations": images * sum(activations(config, precision, checkpointing).values()),
        "workspace": images * (block if checkpointing else moment),
    }
    return Memory(parts)


BLOCK_PARTS = ("attention", "mlp", "cross-attention", "modulation", "layer norms")


@dataclass(frozen=True)
class Card:
    "A graphics card, by its data sheet."

    memory: float  # gigabytes, of 10^9 bytes
    bf16: float | None  # Tflop/s of dense bfloat16 matrix products; None where the card has none
    fp32: float  # Tflop/s in float32
    source: str

    @property
    def precision(self) -> str:
        "The faster kind of number that it has."
        return "bf16" if self.bf16 else "fp32"

    @property
    def tflops(self) -> float:
        "Its peak in that kind."
        return self.bf16 or self.fp32


CARDS = {
    "RTX 3060": Card(12, 25.5, 12.7, "GA102 white paper: twice its float32 rate"),
    "T4": Card(16, None, 8.1, "T4 data sheet"),
    "RTX 4090": Card(24, 165.2, 82.6, "Ada white paper, float32 accumulation"),
    "L4": Card(24, 121, 30.3, "L4 data sheet, half of the sparse rate"),
    "A100-40": Card(40, 312, 19.5, "A100 data sheet"),
    "A100-80": Card(80, 312, 19.5, "A100 data sheet"),
    "H100": Card(80, 989, 67, "H100 SXM data sheet, half of the sparse rate"),
    "H200": Card(141, 989, 67, "H200 SXM data sheet, half of the sparse rate"),
}


ROOM = 0.9  # of a card's gigabytes that we plan with: the rest goes to the driver, libraries, and gaps


def largest_batch(
    config: DiTConfig,
    card: Card,
    checkpointing: bool = False,
    processes: int = 1,
    fsdp: bool = False,
) -> int:  # images in one pass of one process; 0 where not even one fits
    "How many images fit at once, with gradients held."
    one, two = (
        training_memory(config, n * processes, card.precision, checkpointing, processes, fsdp).total
        for n in (1, 2)
    )
    return max(0, int((1e9 * ROOM * card.memory - one) // (two - one)) + 1)


def training_time(
    config: DiTConfig,
    batch_size: int,  # images for each update
    steps: int,  # updates
    tflops: float,  # peak of all cards together
    mfu: float = 0.4,  # share of the peak that is reached: an assumption
    checkpointing: bool = False,  # forward pass done twice
) -> float:  # seconds
    "Work over speed; loading and encoding images is not in it."
    check_amounts(batch_size=batch_size, steps=steps, tflops=tflops, mfu=mfu)
    passes = 4 if checkpointing else 3
    return 2 * cost(config).total_macs * passes * batch_size * steps / (tflops * 1e12 * mfu)


def sampling_time(
    config: DiTConfig,
    images: int,
    steps: int,  # of the sampler
    tflops: float,  # peak of all cards together
    mfu: float = 0.4,  # share of the peak that is reached: an assumption
    guidance: bool = True,  # each image with its label and without
) -> float:  # seconds
    "Work over speed; the VAE's decoder is not in it."
    check_amounts(images=images, steps=steps, tflops=tflops, mfu=mfu)
    return 2 * cost(config).total_macs * (1 + guidance) * images * steps / (tflops * 1e12 * mfu)


def check_amounts(**amounts: float) -> None:
    "Raise ValueError where one is no number above 0."
    for name, value in amounts.items():
        check_number(name, value, float, above_zero=True)


def tell_time(seconds: float) -> str:
    "In minutes, hours, days or years, whichever is easiest to imagine."
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size or unit == "minutes":
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"


ENCODER_MACS = 136.4e9  # multiply-adds of the VAE's encoder for an image of 256 x 256 pixels


BUSY = 4096  # tokens in a pass, under which large cards idle: a rule of thumb


class Plan(NamedTuple):
    "How to train a batch on a card."

    images: int  # in one pass of one process
    passes: int  # for each update; more than 1: accumulate gradients
    checkpointing: bool
    processes: int  # more than 1: share everything out (FSDP)


def plan_training(
    config: DiTConfig,
    card: Card,
    batch_size: int = 256,  # images for each update
) -> Plan | None:  # None where eight cards are too few
    "The cheapest way that fits."
    busy = ceil(BUSY / prod(config.grid))
    ways = ((1, False, busy), (1, True, 1), (2, True, 1), (4, True, 1), (8, True, 1))
    for processes, checkpointing, least in ways:
        share = ceil(batch_size / processes)
        fits = largest_batch(config, card, checkpointing, processes, fsdp=processes > 1)
        if fits >= min(least, share):
            passes = next(k for k in range(ceil(share / fits), share + 1) if share % k == 0)  # all alike
            return Plan(share // passes, passes, checkpointing, processes)
    return None


def advise(
    config: DiTConfig,
    card: str,  # a name in CARDS
    batch_size: int = 256,  # images for each update
    steps: int = 400_000,  # updates
    mfu: float = 0.4,  # share of the card's peak that is reached: an assumption
) -> str:
    "A paragraph: how to fit, and how long it takes."
    check_choice("card", card, tuple(CARDS))
    sheet = CARDS[card]
    plan = plan_training(config, sheet, batch_size)
    if plan is None:
        return f"Too large for eight cards of the kind {card}, even with one image each."
    n, fsdp = plan.processes, plan.processes > 1
    memory = training_memory(config, n * plan.images, sheet.precision, plan.checkpointing, n, fsdp)
    seconds = training_time(config, batch_size, steps, n * sheet.tflops, mfu, plan.checkpointing)
    how = (
        "all at once"
        if plan.passes == 1
        else f"{plan.images} at a time, accumulated over {plan.passes} passes"
    )
    if fsdp:
        how += f" on each of {n} cards, with everything sharded (FSDP)"
    kept = "with activations checkpointed" if plan.checkpointing else "with all activations kept"
    return (
        f"{batch_size} images an update on {'one' if n == 1 else n} {card} in {sheet.precision}: {how}, {kept}. "
        f"That is {memory.total / 1e9:.0f} of {sheet.memory} GB. {steps:,} updates take about "
        f"{tell_time(seconds)} at {mfu:.0%} of the peak, {tell_time(2 * seconds)} at half of that."
    )
