"""Memory and time of training: bytes against what PyTorch saves, seconds against published speeds and the paper."""

import random
import weakref
from itertools import product
from unittest.mock import patch

import pytest
import torch
import torch.distributed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dit_nb.config import _MODEL_NAMES, DiTConfig, TrainConfig
from dit_nb.ema import EMA
from dit_nb.lab.budget import (
    _BYTES_PER_ELEMENT,
    _MIN_TOKENS_PER_PASS,
    _USABLE_FRACTION,
    _VAE_ENCODER_MACS,
    GPUS,
    _activation_bytes,
    _block_activation_bytes,
    _format_duration,
    _largest_batch,
    _plan_training,
    advise,
    sampling_time,
    training_memory,
    training_time,
)
from dit_nb.model import BLOCKS, DiT
from dit_nb.objective import Diffusion
from dit_nb.training import Trainer

torch.set_num_threads(1)
XL = DiTConfig.named("DiT-XL/2")
# Trained parameters of the paper's sizes, patch size 2
PARAMS = {"S": 32_865_056, "B": 130_315_808, "L": 457_840_672, "XL": 674_834_720}
GFLOPS = dict(
    zip(_MODEL_NAMES, (6.06, 1.41, 0.36, 23.01, 5.56, 1.42, 80.71, 19.70, 5.01, 118.64, 29.05, 7.39))
)


def saved_bytes(config, n, precision, checkpointing):
    """Bytes of all distinct storages that autograd saves for a loss, without the weights."""
    model, found = DiT(config).train(), {}
    model.gradient_checkpointing = checkpointing

    def pack(tensor):
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    height, width = config.input_size if isinstance(config.input_size, tuple) else (config.input_size,) * 2
    x0, t = torch.randn(n, config.in_channels, height, width), torch.randint(1, 1000, (n,))
    y = torch.randint(config.num_classes, (n,)) if config.num_classes else None
    diffusion = Diffusion(variance="learned" if config.learn_sigma else "fixed_large")
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = diffusion.training_losses(model, x0, t, y)["loss"].mean()
    assert loss.grad_fn is not None
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for pointer, size in found.items() if pointer not in weights)


def random_config(block, seed):
    """A small model of random shape, with H != W, odd ratios, with and without classes."""
    pick, p = random.Random(seed).choice, random.Random(seed + 1).choice([1, 2, 4])
    heads = pick([1, 2, 3])
    return DiTConfig(
        input_size=(p * pick([1, 3, 5]), p * pick([2, 4, 7])),
        patch_size=p,
        in_channels=pick([1, 3, 4]),
        hidden_size=heads * pick([16, 32]),
        depth=pick([1, 2, 4]),
        num_heads=heads,
        mlp_ratio=pick([1.0, 2.7, 4.0]),
        num_classes=seed % 2 * pick([3, 10]),
        class_dropout_prob=pick([0.0, 0.1]),
        learn_sigma=bool(seed % 3),
        block=block,
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_activation_bytes_equal_what_autograd_saves(block):
    for seed, precision, checkpointing in product(range(4), _BYTES_PER_ELEMENT, (False, True)):
        config = random_config(block, seed)
        two, five = (saved_bytes(config, n, precision, checkpointing) for n in (2, 5))
        counted = sum(_activation_bytes(config, precision, checkpointing).values())
        assert 3 * counted == five - two, (config, precision, checkpointing)


def test_one_more_block_saves_block_activation_bytes():
    shape = dict(input_size=8, in_channels=1, hidden_size=48, num_heads=3, num_classes=10)
    for block, precision in product(BLOCKS, _BYTES_PER_ELEMENT):
        two, three = (
            saved_bytes(DiTConfig(**shape, depth=d, block=block), 3, precision, False)
            - saved_bytes(DiTConfig(**shape, depth=d, block=block), 2, precision, False)
            for d in (2, 3)
        )
        parts = _block_activation_bytes(DiTConfig(**shape, depth=2, block=block), precision)
        assert sum(parts.values()) == three - two, (block, precision)


def test_adaln_zero_block_saves_48_bytes_per_element():
    """By hand, in bfloat16: 20 bytes in the attention branch, 28 in the MLP branch."""
    attention = 4 + 4 + 2 + 3 * 2 + 2 + 2  # stream, normalized, modulated, q k v, output, projection
    mlp = 4 + 4 + 2 + 4 * 2 + 4 * 2 + 2  # stream, normalized, modulated, before and after GELU, output
    found = sum(_block_activation_bytes(XL, "bf16").values()) / (256 * 1152)
    assert attention + mlp == 48 < found < 48.3
    assert 80 < sum(_block_activation_bytes(XL, "fp32").values()) / (256 * 1152) < 80.3


class Meter(TorchDispatchMode):
    """Current and peak bytes of all storages that exist."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.alive = {}

    def note(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive[key] = weakref.ref(storage, lambda _: self.forget(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def forget(self, key, size):
        self.now -= size
        del self.alive[key]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor)
        return out


def fake_peak(config, n, checkpointing, passes):
    """Peak of the second update in bfloat16 on fake tensors, without EMA."""
    with FakeTensorMode(), patch("dit_nb.model._check_index"):
        model = DiT(config).train()
        model.gradient_checkpointing = checkpointing
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        x, t = torch.randn(n, config.in_channels, config.input_size, config.input_size), torch.zeros(n).long()
        with Meter() as meter:
            for tensor in (*model.parameters(), x, t):
                meter.note(tensor)
            for _ in range(2):
                meter.peak = meter.now
                for _ in range(passes):
                    with torch.autocast("cpu", torch.bfloat16):
                        loss = model(x, t, t).float().square().mean()
                    loss.backward()
                    del loss
                optimizer.step()
                optimizer.zero_grad()
    return meter.peak


@pytest.mark.parametrize("checkpointing, passes", [(False, 1), (False, 2), (True, 2)])
def test_peak_of_a_large_model(checkpointing, passes):
    """XL/2 with 4 of its 28 blocks and 64 images, on fake tensors: no memory is used."""
    config = DiTConfig.named("DiT-XL/2", depth=4)
    memory = training_memory(config, 64, "bf16", checkpointing)
    counted = (memory.peak if passes == 1 else memory.total) - memory.parts["average"]
    assert 0.995 < counted / fake_peak(config, 64, checkpointing, passes) < 1.10


def test_recorded_peaks_of_xl_2():
    """`fake_peak` of all 28 blocks and 256 images takes minutes; these are its results, in GB."""
    recorded = {(False, 1): 112.7643, (False, 2): 115.4635, (True, 2): 24.1447}
    for (checkpointing, passes), measured in recorded.items():
        memory = training_memory(XL, 256, "bf16", checkpointing)
        counted = (memory.peak if passes == 1 else memory.total) - memory.parts["average"]
        assert 0.999 < counted / 1e9 / measured < 1.06, (checkpointing, passes, counted / 1e9)


class NoiseImages:
    """Eight images of noise."""

    class_names = tuple("0123456789")

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.randn(1, 16, 16).clamp(-1, 1), 0


@pytest.mark.parametrize("precision, checkpointing", [("fp32", False), ("bf16", False), ("bf16", True)])
def test_peak_of_a_trainer(precision, checkpointing):
    config = DiTConfig(input_size=16, in_channels=1, hidden_size=96, depth=4, num_heads=4, num_classes=10)
    settings = TrainConfig(
        steps=2, batch_size=8, precision=precision, gradient_checkpointing=checkpointing, seed=0
    )
    with Meter() as meter:
        model = DiT(config)
        for tensor in model.parameters():
            meter.note(tensor)
        trainer = Trainer(model, Diffusion(), NoiseImages(), settings)
        batches = trainer.batches()
        trainer.step(next(batches))
        meter.peak = meter.now
        trainer.step(next(batches))
    memory = training_memory(config, 8, precision, checkpointing)
    assert 0.97 < memory.peak / meter.peak < 1.10, memory.peak / meter.peak


def test_ddp_holds_a_second_copy_of_the_gradients():
    """A group of one process has the buckets too."""
    config = DiTConfig(input_size=8, in_channels=1, hidden_size=64, depth=2, num_heads=4, num_classes=10)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with Meter() as meter:
            model = DiT(config).train()
            for tensor in model.parameters():
                meter.note(tensor)
            before = meter.now
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
            for _ in range(2):
                wrapped(torch.randn(2, 1, 8, 8), torch.ones(2).long(), torch.ones(2).long()).mean().backward()
            measured = meter.now - before
    finally:
        torch.distributed.destroy_process_group()
    parts = training_memory(config, 2, "fp32", processes=2).parts
    assert abs(measured / (parts["buckets"] + parts["gradients"]) - 1) < 0.01
    assert training_memory(config, 2, "fp32").parts["buckets"] == 0


@pytest.mark.parametrize("size", PARAMS)
def test_20_bytes_per_weight(size):
    config, params = DiTConfig.named(f"DiT-{size}/2"), PARAMS[size]
    parts = training_memory(config, 1).parts
    positions = 256 * config.hidden_size
    persistent = sum(parts[k] for k in ("weights", "gradients", "moments", "average"))
    assert persistent == 20 * params + 8 * positions
    assert parts["copies"] == 2 * (params - 1001 * config.hidden_size)
    assert training_memory(config, 1, "fp32").parts["copies"] == 0


def test_an_independent_estimate():
    """An estimate by hand was 100 to 130 GB of activations for XL/2 at batch 256 in bfloat16, without compilation."""
    parts = training_memory(XL, 256).parts
    assert 100e9 < parts["activations"] + parts["copies"] < 130e9
    assert abs(parts["activations"] / 256 - 400.56e6) < 0.1e6


def test_memory_is_linear_in_the_batch_size():
    for checkpointing in (False, True):
        totals = [training_memory(XL, n, checkpointing=checkpointing).total for n in (1, 2, 9)]
        assert abs(totals[2] - totals[0] - 8 * (totals[1] - totals[0])) < 1
    assert (
        training_memory(XL, 64, processes=4).parts["activations"]
        == training_memory(XL, 16).parts["activations"]
    )
    assert (
        training_memory(XL, 65, processes=4).parts["activations"]
        == training_memory(XL, 17).parts["activations"]
    )


def test_fsdp_shards_the_state():
    one, eight = training_memory(XL, 8), training_memory(XL, 64, processes=8, fsdp=True)
    for part in ("weights", "gradients", "moments", "average"):
        assert 8 * eight.parts[part] == one.parts[part]
    assert eight.parts["activations"] == one.parts["activations"]
    assert 0 < eight.parts["copies"] < one.parts["copies"] / 10 and eight.parts["buckets"] == 0
    assert training_memory(XL, 8, fsdp=True) == one  # a single process shards nothing
    fp32 = training_memory(XL, 8, "fp32", processes=2, fsdp=True).parts["copies"]
    assert fp32 == 2 * 4 * (18 * 1152**2 + 15 * 1152)  # two blocks: 4 + 8 + 6 squares, 4 + 5 + 6 biases


def test_largest_batch_is_the_largest():
    for name, (gpu, spec), checkpointing in product(("DiT-S/4", "DiT-L/2"), GPUS.items(), (False, True)):
        config = DiTConfig.named(name)
        n = _largest_batch(config, spec, checkpointing)
        usable = _USABLE_FRACTION * 1e9 * spec.memory
        if n:
            assert training_memory(config, n, spec.precision, checkpointing).total <= usable, (name, gpu)
        assert training_memory(config, n + 1, spec.precision, checkpointing).total > usable, (name, gpu)
    assert _largest_batch(XL, GPUS["RTX 3060"], checkpointing=True) == 0


@pytest.mark.parametrize("name", _MODEL_NAMES)
def test_training_time_matches_figure_9(name):
    """Gflops x batch x steps x 3, each multiply-add two operations."""
    operations = 2 * 3 * GFLOPS[name] * 1e9 * 256 * 400_000
    seconds = training_time(DiTConfig.named(name), 256, 400_000, tflops=1000, mfu=0.5)
    assert abs(seconds / (operations / 500e12) - 1) < (0.001 if GFLOPS[name] > 5 else 0.01)


@pytest.mark.parametrize(
    "speed, batch, chips, achieved",
    [(0.51, 256, 8, 11.6), (0.81, 256, 8, 18.4), (0.43, 128, 1, 39), (0.56, 128, 1, 51), (0.84, 128, 1, 77)],
)
def test_published_training_speeds(speed, batch, chips, achieved):
    """Steps per second of DiT-XL/2 on A100, and the Tflop/s published for them."""
    tflops = training_time(XL, batch, 1, tflops=1, mfu=1) * speed / chips
    assert abs(tflops / achieved - 1) < 0.013


def test_time_scales_with_work_and_speed():
    base = training_time(XL, 256, 1000, 312)
    assert training_time(XL, 256, 1000, 312, checkpointing=True) == pytest.approx(base * 4 / 3)
    assert training_time(XL, 512, 1000, 624) == pytest.approx(base)
    assert training_time(XL, 256, 1000, 312, mfu=0.2) == pytest.approx(2 * base)
    one_pass = training_time(XL, 1, 1, 312) / 3
    assert sampling_time(XL, 1, 1, 312, guidance=False) == pytest.approx(one_pass)
    assert sampling_time(XL, 1, 1, 312) == pytest.approx(2 * one_pass)
    large = DiTConfig.named("DiT-L/2")  # Figure 10: 80.7 trillion multiply-adds
    assert sampling_time(large, 1, 1000, 2e-12, mfu=1, guidance=False) == pytest.approx(80.7e12, rel=1e-3)


def test_vae_encoder_macs():
    """Count Stable Diffusion's VAE from its layers."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        from diffusers import AutoencoderKL
    except RuntimeError as error:  # a torchvision that does not fit this torch
        pytest.skip(str(error).splitlines()[-1])
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **kinds)
        assert sum(p.numel() for p in vae.parameters()) == 83_653_863  # the paper says 84M
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vae.encode(torch.randn(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 == pytest.approx(_VAE_ENCODER_MACS, rel=1e-3)


@pytest.mark.parametrize("gpu", GPUS)
def test_plans_fit_and_no_cheaper_plan_does(gpu):
    spec = GPUS[gpu]
    for name, pixels in product(_MODEL_NAMES, (256, 512)):
        config = DiTConfig.named(name, input_size=pixels // 8)
        plan = _plan_training(config, spec, 256)
        n = plan.processes
        assert plan.images * plan.passes * n == 256
        fsdp = n > 1
        memory = training_memory(config, n * plan.images, spec.precision, plan.checkpointing, n, fsdp)
        assert memory.total <= _USABLE_FRACTION * 1e9 * spec.memory
        tokens, plain = (pixels // 8 // config.patch_size) ** 2, _largest_batch(config, spec)
        assert plan.checkpointing == (plain < 256 and plain * tokens < _MIN_TOKENS_PER_PASS)
        assert fsdp == (_largest_batch(config, spec, checkpointing=True) == 0)


def test_plans_for_tiny_and_huge_models():
    tiny = DiTConfig(input_size=8, in_channels=1, hidden_size=64, depth=2, num_heads=4, num_classes=10)
    assert _plan_training(tiny, GPUS["T4"], 4) == (4, 1, False, 1)  # few tokens, but the batch has no more
    huge = DiTConfig(hidden_size=8192, depth=100, num_heads=64)
    assert _plan_training(huge, GPUS["H100"]) is None
    assert "Too large" in advise(huge, "H100")


def test_advice_states_the_plan():
    text = advise(XL, "RTX 4090")
    days = training_time(XL, 256, 400_000, 165.2) / 86400
    for words in (
        "16 at a time",
        "16 passes",
        "bf16",
        "21 of 24 GB",
        f"{days:.0f} days at 40%",
        "without grad",
    ):
        assert words in text, (words, text)
    assert "fp32" in advise(XL, "T4") and "with gradient checkpointing" in advise(XL, "T4")
    assert "2 GPUs" in advise(XL, "RTX 3060") and "FSDP" in advise(XL, "RTX 3060")


def test_format_duration():
    durations = {
        0.5: "0.5 seconds",
        90: "90 seconds",
        150: "2.5 minutes",
        3600: "60 minutes",
        7200: "2.0 hours",
        20 * 86400: "20 days",
        1e8: "3.2 years",
    }
    assert {seconds: _format_duration(seconds) for seconds in durations} == durations


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: training_memory(XL, 0), "batch_size is 0"),
        (lambda: training_memory(XL, 2.5), "batch_size is 2.5"),
        (lambda: training_memory(XL, 2, processes=0), "processes is 0"),
        (lambda: training_memory(XL, 2, "fp16"), "precision is 'fp16'"),
        (lambda: training_time(XL, 256, 1, 312, mfu=0), "mfu is 0"),
        (lambda: training_time(XL, 256, 1, -1), "tflops is -1"),
        (lambda: sampling_time(XL, 0, 250, 312), "images is 0"),
        (lambda: advise(XL, "RTX 9999"), "gpu is 'RTX 9999'"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.slow
def test_a_compiled_block_saves_40_of_48_bytes():
    """Per element of one more block, with the compiler's min-cut partition of forward and backward."""
    from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    sizes = []

    def forward(graph, _):
        (output,) = (node for node in graph.graph.nodes if node.op == "output")
        kinds = {node.name: node.op for node in graph.graph.nodes}
        saved = [
            node for node in output.args[0] if hasattr(node, "meta") and kinds[node.name] != "placeholder"
        ]
        values = [node.meta["val"] for node in saved if isinstance(node.meta.get("val"), torch.Tensor)]
        storages = {v.untyped_storage()._cdata: v for v in values}
        sizes.append(sum(v.untyped_storage().nbytes() for v in storages.values()))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=forward,
        bw_compiler=lambda graph, _: make_boxed_func(graph.forward),
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    for depth in (1, 2):
        shape = dict(input_size=(16, 24), hidden_size=128, num_heads=4, num_classes=5, depth=depth)
        torch._dynamo.reset()
        model = torch.compile(DiT(DiTConfig(**shape)).train(), backend=backend)
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.randn(3, 4, 16, 24), torch.ones(3).long(), torch.ones(3).long())
    one, two = sizes
    copies = 2 * 18 * 128**2  # the block's weights in bfloat16
    assert 39.5 < (two - one - copies) / (3 * 96 * 128) < 41


@pytest.mark.cuda
@pytest.mark.parametrize("precision, checkpointing", product(_BYTES_PER_ELEMENT, (False, True)))
def test_peak_on_a_gpu(precision, checkpointing):
    config, n = DiTConfig.named("DiT-B/2"), 16
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = DiT(config).cuda().train()
    model.gradient_checkpointing = checkpointing
    ema, diffusion = EMA(model, 0.999), Diffusion().to("cuda")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    x0, t = torch.randn(n, 4, 32, 32, device="cuda"), torch.arange(1, n + 1, device="cuda")
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                loss = diffusion.training_losses(model, x0, t, t)["loss"].mean()
            loss.backward()
            del loss
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
    measured = torch.cuda.max_memory_allocated() - before
    assert 0.95 < training_memory(config, n, precision, checkpointing).total / measured < 1.15
