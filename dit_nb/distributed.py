"""Training in several processes: which process this is, errors on all ranks, and models that FSDP shards."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from dit_nb.config import TrainConfig
from dit_nb.errors import _DISK_ERRORS, UserError, _explain_os_error
from dit_nb.model import DiT
from dit_nb.signals import StopSignals
from dit_nb.speed import _compile_for_training
from dit_nb.utils import _make_folder

__all__ = []

# How long a process waits for the others, for instance while the main process opens millions of images. (PyTorch's
# 10 minutes are less.) A process that crashes ends the others at once all the same: the launcher sees to that.
_TIMEOUT = timedelta(hours=6)


def _process_state():
    """Return Accelerate's `PartialState`: `process_index`, `num_processes`, `is_main_process` and `device`."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without a GPU, Accelerate needs cpu=True: otherwise each worker of torchrun believes that it is alone.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=on_cpu, timeout=_TIMEOUT)


@contextmanager
def _raise_on_all_ranks() -> Iterator[SimpleNamespace]:
    """If the body fails on any rank, raise an error on every rank. All ranks must enter it.

    Yields an object: after the body, its `largest` is the largest number that the body of any rank has given it.
    """
    failure, state, shared = None, _process_state(), SimpleNamespace(largest=0)
    try:
        yield shared
    except Exception as error:
        failure = _as_user_error(error)
    if state.num_processes > 1:
        numbers = torch.tensor([float(failure is not None), shared.largest], device=state.device)
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
        failed, shared.largest = map(int, numbers.tolist())
        if failed:  # only now, because sending text takes longer than sending a number
            messages = _gather_messages(failure)
            failure = failure or UserError(next(text for text in messages if text))
    if failure is not None:
        raise failure


def _gather_messages(failure: Exception | None) -> list[str | None]:
    "The messages of all ranks, None of those that did not fail. A bug may have no message, but a type."
    from accelerate.utils import gather_object

    return gather_object([failure and (str(failure) or repr(failure))])


def _as_user_error(error: Exception) -> Exception:
    "The error itself; a UserError of a DataLoader's worker without the traceback before its sentence; one on a file."
    if isinstance(error, UserError):
        return UserError(str(error).strip().splitlines()[-1].split("UserError: ")[-1])
    if not isinstance(error, OSError) or not (error.filename or error.errno in _DISK_ERRORS):
        return error
    explained = UserError(_explain_os_error(error))
    explained.__cause__ = error  # where the file was asked for
    return explained


def _main_process_first(make: Callable):
    """Call `make()` in the main process, then in one of each other machine, then in the others; return its result.

    Those that come later find the files of those before, whether the machines share a disk or not.
    """
    state = _process_state()
    turn = 0 if state.is_main_process else 1 if state.is_local_main_process else 2
    for now in range(3):
        with _raise_on_all_ranks():
            if turn == now:
                made = make()
    return made


def _make_accelerator(config: TrainConfig, out: Path | None, precision: str):
    """Make Accelerate's `Accelerator` for the processes at hand, and the run's folder."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision == "fp16" and _process_state().device.type == "cpu":
        raise UserError("precision is 'fp16', but must be fp32 or bf16 on a CPU.")
    AcceleratorState._reset_state()  # a notebook may train twice, in different precisions
    accelerator = Accelerator(mixed_precision=precision, log_with=config.tracker, project_dir=out)
    with _raise_on_all_ranks():
        if out is not None and accelerator.is_main_process:
            _make_folder(out)
    return accelerator


def _next_on_all_ranks(batches: Iterator, signals: StopSignals) -> Iterator:
    """Pass batches on, until any rank has received a signal; if reading one fails on any rank, raise on every rank."""
    while True:
        with _raise_on_all_ranks() as ranks:
            batch = _next_unless_stopped(batches, signals)
            ranks.largest = signals.received
        signals.received = ranks.largest
        if signals.received:
            return
        yield batch


def _next_unless_stopped(batches: Iterator, signals: StopSignals):
    """Return the next batch, or None if this process has received a signal, which may have ended its workers too."""
    try:
        return None if signals.received else next(batches)
    except RuntimeError:
        if not signals.received:
            raise
    return None


def _micro_batches(accelerator, model: nn.Module, n: int, count: int) -> Iterator[slice]:
    """Yield `count` equal parts of n images. DDP syncs gradients on the last only; FSDP on each, as it shards them."""
    if n % count:
        raise UserError(f"batch has {n} images, but must have a multiple of grad_accum_steps {count}.")
    for i in range(0, n, n // count):
        last = i == n - n // count
        with nullcontext() if last or accelerator.is_fsdp2 else accelerator.no_sync(model):
            yield slice(i, i + n // count)


def _prepare_distributed(
    accelerator, model: DiT, ema, optimizer: torch.optim.Optimizer, compiled: bool = False
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Prepare model, average and optimizer for the processes at hand: one, DDP replicas, or FSDP shards."""
    if accelerator.distributed_type == "FSDP":
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise UserError(
                f"fsdp_version is {plugin.fsdp_version}, but must be 2: set it in the config file."
            )
        plugin.cpu_ram_efficient_loading = False  # every process has the weights; and it fails on pos_embed
        if plugin.mixed_precision_policy:  # many small gradients are summed: not in bfloat16
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
    network = _compile_for_training(model) if compiled else model
    prepared = accelerator.prepare(network, optimizer)
    if accelerator.is_fsdp2:
        _shard_like(ema.model, model)
    return prepared


def _clip_gradients(accelerator, model: nn.Module, largest: float | None) -> torch.Tensor:
    """Scale the gradients to a norm of at most `largest`, if given; return their norm before, of all FSDP shards."""
    if largest is None and not accelerator.is_fsdp2:  # accelerate would multiply them by 1
        accelerator.unscale_gradients()
        return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    norm = accelerator.clip_grad_norm_(model.parameters(), largest or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _shard_like(model: nn.Module, sharded: nn.Module) -> None:
    """Replace a model's weights by copies of the shards of the same model, prepared by FSDP."""
    shards = {name: shard.detach().clone() for name, shard in sharded.state_dict().items()}
    model.load_state_dict(shards, assign=True)


def _full_model(model) -> DiT:
    """Return a model with all of its weights: a gathered copy under FSDP, otherwise the model itself."""
    if not any(hasattr(p, "full_tensor") for p in model.parameters()):
        return model
    model = copy.deepcopy(model)
    weights = {name: shard.full_tensor() for name, shard in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    return model


def _shutdown(wait: bool = True) -> None:
    """Disconnect the processes, if they are connected.

    Args:
        wait: wait for all processes before; not if this one has failed, and the others may not come
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    state = _process_state()
    if wait:
        state.wait_for_everyone()
        # A thread of gloo, which connects CPUs, may hold a tensor a moment longer. If Python exits in that moment,
        # it crashes, and the launcher ends the other processes too, while one of them saves the model.
        time.sleep(0.2)
    state.destroy_process_group()
