"""Training in several processes: which process this is, errors on all ranks, and models that FSDP shards."""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from dit_nb.model import DiT

__all__ = []


def _process_state():
    """Return Accelerate's `PartialState`: `process_index`, `num_processes`, `is_main_process` and `device`."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without a GPU, Accelerate needs cpu=True: otherwise each worker of torchrun believes that it is alone.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


@contextmanager
def _raise_on_all_ranks() -> Iterator[None]:
    """If the body fails on any rank, raise the same error on every rank. All ranks must enter it."""
    message, state = None, _process_state()
    try:
        yield
    except (ValueError, OSError) as error:  # a DataLoader's worker puts a traceback before the message
        message = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
    if state.num_processes > 1:
        from accelerate.utils import gather_object, reduce

        failures = reduce(torch.tensor(float(message is not None), device=state.device), "sum")
        if failures:  # only now, because sending text takes longer than sending a number
            message = next(text for text in gather_object([message]) if text)
    if message:
        raise ValueError(message)


def _main_process_first(make: Callable):
    """Call `make()` in the main process, then in the others, which find its files; return the result in each."""
    for first in (True, False):
        with _raise_on_all_ranks():
            if _process_state().is_main_process == first:
                made = make()
    return made


def _prepare_distributed(
    accelerator, model: DiT, optimizer: torch.optim.Optimizer, compiled: bool = False
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Prepare model and optimizer for the processes at hand: one, DDP replicas, or FSDP shards."""
    fsdp = accelerator.distributed_type == "FSDP"
    if fsdp:
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ValueError(
                f"fsdp_version is {plugin.fsdp_version}, but must be 2: set it in the config file."
            )
        plugin.cpu_ram_efficient_loading = False  # every process has the weights; and it fails on pos_embed
        if plugin.mixed_precision_policy:  # many small gradients are summed: not in bfloat16
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
        # We never write into such a view.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    prepared = accelerator.prepare(torch.compile(model) if compiled else model, optimizer)
    if fsdp:
        from torch.distributed.fsdp import register_fsdp_forward_method

        for module in (*model.blocks, model.final_layer):  # their weights are needed before `forward`
            register_fsdp_forward_method(module, "condition")
    return prepared


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


def _shutdown(accelerator) -> None:
    """End a run: wait for all processes, close logs and connections."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        # A thread of gloo, which connects CPUs, may hold a tensor a moment longer. If Python exits in that moment,
        # it crashes, and the launcher ends the other processes too, while one of them saves the model.
        time.sleep(0.2)
    accelerator.end_training()
