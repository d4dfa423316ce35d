"""Opt-in speed: an inference copy of a model, CPU settings inside a `with` block, and compilation for training."""

import copy
import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache, partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dit_nb.blocks.adaln import AdaLNBlock, AdaLNModulation
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.errors import UserError, _check_choice, _check_type, _shown
from dit_nb.model import DiT, _check_inputs
from dit_nb.packed_linear import _can_pack, _pack_linear_layers
from dit_nb.processors import _device_policy, cpu_policy, this_processor
from dit_nb.utils import _check_index

__all__ = ["InferenceModel", "fast_cpu"]


@contextmanager
def fast_cpu(trainer=None) -> Iterator[None]:
    """Use the CPU settings that were measured to be faster (guide Speed) inside a `with` block; put back afterwards.

    They hold for the whole process: the settings of `dit_nb.processors.cpu_policy` for this processor, and freed
    memory kept for the next step (glibc). A GPU is not affected.

    Args:
        trainer: the `Trainer` whose steps are taken inside, if any: in bfloat16 another kernel of attention may be
            faster for training than for sampling

    Raises:
        UserError: if `trainer` is no Trainer
    """
    if trainer is not None and not hasattr(trainer, "accelerator"):
        raise UserError(f"trainer is {_shown(trainer)}, but must be a Trainer.")
    with ExitStack() as stack:
        if not torch.cuda.is_available():
            policy = cpu_policy(this_processor())
            if policy.float32_products == "medium" and _medium_is_exact():
                stack.enter_context(_float32_matmul_precision("medium"))
            trains_bf16 = trainer is not None and trainer.accelerator.mixed_precision == "bf16"
            stack.enter_context(
                _attention(policy.bf16_training_attention if trains_bf16 else policy.attention)
            )
        stack.enter_context(_keep_freed_memory())
        yield


@contextmanager
def _attention(kernel: str) -> Iterator[None]:
    "Inside, attention is computed by its formula, in the precision of q, k and v; or by the kernel that PyTorch chooses."
    if kernel == "fused":
        yield
        return
    cuda = torch.backends.cuda  # the settings of the formula, on a CPU as well
    before = cuda.fp16_bf16_reduction_math_sdp_allowed()
    cuda.allow_fp16_bf16_reduction_math_sdp(True)  # else it converts bfloat16 to float32 first
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        cuda.allow_fp16_bf16_reduction_math_sdp(before)


@lru_cache(maxsize=1)
def _medium_is_exact() -> bool:
    "Whether float32 products of precision medium have float32's errors here: a guard beside the table of processors."
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(512, 512, generator=g) for _ in range(2))
    with _float32_matmul_precision("medium"):
        return bool((F.linear(x, w) - F.linear(x.double(), w.double())).abs().max() < 1e-4)


@contextmanager
def _float32_matmul_precision(name: str) -> Iterator[None]:
    """Set torch's float32 matmul precision inside a `with` block, and restore it afterwards.

    Args:
        name: highest, high or medium (`torch.set_float32_matmul_precision`)
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _tf32(allowed: bool) -> AbstractContextManager:
    "Let GPUs multiply float32 numbers as TF32 inside a `with` block, if allowed; a CPU is not affected."
    return _float32_matmul_precision("high") if allowed and torch.cuda.is_available() else nullcontext()


_keepers: list = []  # open blocks of `_keep_freed_memory`: malloc cannot be asked for its settings


@contextmanager
def _keep_freed_memory() -> Iterator[None]:
    "Make malloc keep freed memory for the next step instead of returning it to the system (glibc only)."
    trim_threshold, mmap_max = -1, -4  # constants of glibc's malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    _keepers.append(mallopt)
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)
    try:
        yield
    finally:
        _keepers.pop()
        if mallopt is not None and not _keepers:  # the outermost block ends
            mallopt(mmap_max, 65536)  # glibc's defaults
            mallopt(trim_threshold, 128 * 1024)


def _freeze_weights() -> AbstractContextManager:
    "Let Inductor constant-fold and pre-pack weights in what is compiled inside (CPU)."
    from torch._inductor import config

    return config.patch(freezing=True)


class _SigmoidGELU(nn.Module):
    "GELU (tanh form) by a sigmoid: equal, since (1 + tanh(u)) / 2 = sigmoid(2u); a third of the time if compiled."

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid((8 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))


class _WithAttention(nn.Module):
    "Calls a module so that attention is computed by one kernel: the formula, which Inductor fuses, or the fused one."

    def __init__(self, module: nn.Module, kernel: str):
        super().__init__()
        self.module = module
        self.forward = _attention(kernel)(module.__call__)


def _compile_for_training(model: DiT) -> nn.Module:
    "Compile a model for training, on a CPU with the forms of attention and GELU that are faster when compiled."
    if model.pos_embed.device.type != "cpu":
        return cast(nn.Module, torch.compile(model))
    for part in model.blocks.modules():
        act = getattr(part, "act", None)
        if isinstance(act, nn.GELU) and act.approximate == "tanh":
            part.act = _SigmoidGELU()
    kernel = _device_policy("cpu").compiled_training_attention
    return _WithAttention(cast(nn.Module, torch.compile(model)), kernel)


_TABLE_LIMIT = 2**26  # numbers in a table of modulations: 256 MB in float32


class _Columns(nn.Module):
    "Stands for an AdaLNModulation: takes its vectors from those of all blocks, computed before."

    def __init__(self, start: int, n_fields: int):
        super().__init__()
        self.columns, self.n_fields = slice(start, start + n_fields), n_fields

    def forward(self, c: Tensor) -> Tensor:  # (N, all fields, D) -> (N, n_fields, D)
        return c[:, self.columns]


class InferenceModel:
    """A copy of a model for sampling, without gradients. Call it like the model.

    What depends on timestep and label alone (the modulations of adaLN) is computed once for all steps of a run.

    Args:
        model: the model to copy; its weights are shared if the precision is fp32
        precision: fp32, or bf16: matrices in bfloat16, faster if the hardware supports it, within 1 % (guide Speed)
        compiled: use torch.compile, for one batch size

    Raises:
        UserError: if `model` is no DiT, or the precision is unknown
    """

    def __init__(self, model: DiT, precision: str = "fp32", compiled: bool = False):
        _check_type("model", model, DiT)
        _check_choice("precision", precision, ("fp32", "bf16"))
        self.null_class, self.config, self.training = model.null_class, model.config, False
        self.image_shape = model.image_shape
        self.device, self.bf16 = model.pos_embed.device, precision == "bf16"
        self.model = _copy(model, self.bf16)
        if self.bf16 and not compiled and _can_pack(self.device):  # the compiler does it by itself
            _pack_linear_layers(self.model)
        self.modulations = [m for m in self.model.modules() if isinstance(m, AdaLNModulation)]
        # Another block may use c elsewhere than in its modulation: then there is no table.
        tabulated = type(self.model).forward is DiT.forward  # so does a class with its own forward pass
        tabulated &= all(type(block) in (AdaLNBlock, AdaLNZeroBlock) for block in self.model.blocks)
        self.denoiser = _without_modulations(self.model) if tabulated else None
        if compiled:
            network = self.denoiser or self.model
            network._denoise = torch.compile(network._denoise, dynamic=False)
        self.frozen = compiled and self.device.type == "cpu"

    def _call(self, call: Callable, *args):
        "One call, in the precision of this copy."
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16))
            if self.frozen:
                stack.enter_context(_freeze_weights())
                stack.enter_context(_attention(_device_policy(self.device).compiled_attention))
            return call(*args)

    def _vectors(self, t: Tensor, y: Tensor | None) -> Tensor:  # (N, all fields, D)
        c = self.model.t_embedder(t)  # (N, D)
        if self.model.y_embedder is not None:
            c = c + self.model.y_embedder(y, None)
        return torch.cat([modulation(c) for modulation in self.modulations], dim=1)

    def precompute_conditioning(self, timesteps: Tensor, y: Tensor | None = None) -> Callable:
        """Compute the modulations of every (timestep, label) pair of a sampling run once, for all its steps.

        Args:
            timesteps: all timesteps of the run
            y: all its labels; None for a model without classes

        Returns:
            function of (x, t, y) that gives what the model gives; the model itself if the table would be too large

        Raises:
            UserError: if a timestep or a label does not fit the model
        """
        n = 0 if y is None else len(y)
        x = torch.empty(n, *self.model.image_shape, device=self.device)
        _check_inputs(self.model, x, timesteps[:1].expand(n), y)
        times, labels = timesteps.unique(), None if y is None else y.unique()  # both sorted
        k = 1 if labels is None else len(labels)
        fields = sum(modulation.n_fields for modulation in self.modulations)
        too_large = len(times) * k * self.config.hidden_size * fields > _TABLE_LIMIT
        no_labels = y is not None and (y.is_floating_point() or y.ndim != 1)  # another condition than a label
        if self.denoiser is None or too_large or no_labels:
            return self
        all_labels = None if labels is None else labels.repeat(len(times))
        table = self._call(self._vectors, times.repeat_interleave(k), all_labels)  # (times * k, fields, D)
        return partial(self._call, partial(self._look_up_and_denoise, table, times, labels))

    def _look_up_and_denoise(
        self, table, times, labels, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> Tensor:
        _check_inputs(self.model, x, t, y)
        row = _lookup("t", times, t, len(x))  # (N,)
        if labels is not None:
            row = row * len(labels) + _lookup("y", labels, y, len(x))
        return self.denoiser._denoise(x, table[row])

    def __call__(self, x: Tensor, t: Tensor, *args, **kwargs) -> Tensor:
        """Predict (N, 2C, H, W) as the model does, for images `x`, (N, C, H, W), `t`, (N,), and labels (N,)."""
        return self._call(
            partial(self.model if self.denoiser is None else self._plain, **kwargs), x, t, *args
        )

    def _plain(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        _check_inputs(self.model, x, t, y)
        return self.denoiser._denoise(x, self._vectors(t, y))


def _copy(model: DiT, bf16: bool) -> DiT:
    "Copy a model in eval() mode: the matrices in bfloat16, or all weights shared."
    shared = {} if bf16 else {id(p): p for p in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared).eval()
    for part in model.modules() if bf16 else ():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.to(torch.bfloat16)
    return model


def _without_modulations(model: DiT) -> DiT:
    "The same model, sharing its weights, whose condition c is the vectors of all its modulations, (N, fields, D)."
    model, start = _copy(model, bf16=False), 0
    for part in (*model.blocks, model.final_layer):
        fields = part.adaLN_modulation.n_fields
        part.adaLN_modulation = _Columns(start, fields)
        start += fields
    return model


def _lookup(name: str, known: Tensor, wanted: Tensor, n: int) -> Tensor:  # (n,)
    "Index of each wanted number among the known ones, which are sorted."
    _check_index(name, wanted, n, floats=True)
    if wanted.device.type == "cpu" and not torch.isin(wanted, known).all():
        raise UserError(f"{name} holds a number that `precompute_conditioning` was not given.")
    return torch.searchsorted(known, wanted.contiguous())
