"""One readable loop: draw luck, predict, step, average."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from dit_nb.model import DiT


def local(weight: Tensor) -> Tensor:
    "All of a weight; where FSDP has cut it into shares, the share of this process."
    return weight.to_local() if hasattr(weight, "to_local") else weight


def processes():  # Accelerate's PartialState: process_index, num_processes, is_main_process, device
    "Which of how many processes this is."
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without a GPU, Accelerate must be told that the CPU is meant: else each of several processes that torchrun
    # started would take itself for the only one.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


@contextmanager
def together() -> Iterator[None]:
    "What one of the processes cannot do, none does: all raise a ValueError with the same sentence."
    error, state = None, processes()
    try:
        yield
    except (
        ValueError,
        OSError,
    ) as caught:  # a worker of a DataLoader puts its whole story before the sentence
        error = str(caught).strip().splitlines()[-1].removeprefix("ValueError: ")
    if state.num_processes > 1:
        from accelerate.utils import gather_object, reduce

        failures = reduce(torch.tensor(float(error is not None), device=state.device), "sum")
        if failures:  # only now, because sending text takes longer than sending a number
            error = next(text for text in gather_object([error]) if text)
    if error:
        raise ValueError(error)


def main_first(
    make: Callable,  # without arguments
):  # what it gives, in each process
    "The main process makes it first; what that leaves on disk, the others find."
    for first in (True, False):
        with together():
            if processes().is_main_process == first:
                made = make()
    return made


def part_ways(
    accelerator,  # Accelerate's
) -> None:
    "The end of a run: wait for all processes, close logs and connections."
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        # A thread of gloo, which connects CPUs, may hold a tensor a moment longer. If Python exits in that moment,
        # it crashes, and the launcher ends the other processes too, while one of them saves the model.
        time.sleep(0.2)
    accelerator.end_training()


def spread(
    accelerator,  # Accelerate's
    model: DiT,
    optimizer: torch.optim.Optimizer,
    compiled: bool,  # by torch.compile
) -> tuple[nn.Module, torch.optim.Optimizer]:
    "Model and optimiser where they train: as they are, a copy for each process, or cut into shares by FSDP."
    split = accelerator.distributed_type == "FSDP"
    if split:
        plugin = accelerator.state.fsdp_plugin
        if plugin.fsdp_version != 2:
            raise ValueError(
                f"fsdp_version is {plugin.fsdp_version}, but must be 2: say so in the config file."
            )
        plugin.cpu_ram_efficient_loading = False  # every process has the weights; and it fails on pos_embed
        if plugin.mixed_precision_policy:  # many small gradients are summed: not in bfloat16
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
        warnings.filterwarnings(
            "ignore", "FSDP2-wrapped module .* returned a view"
        )  # we never write into one
    prepared = accelerator.prepare(torch.compile(model) if compiled else model, optimizer)
    if split:
        from torch.distributed.fsdp import register_fsdp_forward_method

        for part in (*model.blocks, model.final_layer):  # their weights are needed before `forward`
            register_fsdp_forward_method(part, "condition")
    return prepared
