"""Checkpoints that are written while training goes on, the optimizer's moments in shards (torch.distributed.checkpoint)."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import torch
from torch.utils._pytree import tree_map_only

from dit_nb.checkpoint import (
    _SHARDS,
    Checkpointer,
    _check_finite,
    _gather_state,
    _start_checkpoint,
    _write_files,
)
from dit_nb.distributed import _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.run_settings import _run_settings, _sampling_settings

__all__ = ["BackgroundCheckpointer"]


class BackgroundCheckpointer(Checkpointer):
    """A `Checkpointer` that copies the state to the CPU, and writes it while training goes on.

    Each process writes its shards of the optimizer's moments, the main process the weights and their average. A
    checkpoint appears when the next one is begun, or at the end of the run.
    """

    _writing: tuple[Path, list[Future]] | None = None
    _group = None  # processes that write talk to each other beside those that train

    def save(self, trainer) -> Path:
        """Copy the state, and begin to write a checkpoint.

        Args:
            trainer: the run; all ranks must call this

        Raises:
            UserError: if a weight or a moment is not finite, or an earlier checkpoint could not be written
        """
        self.finish(trainer)
        if self.out is None:
            raise UserError("out is None, but must be a folder to write checkpoints to.")
        final = self.out / "checkpoints" / f"step-{trainer.progress.step:08d}"
        _check_finite(trainer, moments=True)
        weights, average, rest = tree_map_only(
            torch.Tensor, torch.clone, _gather_state(trainer, moments=False)
        )
        temporary, main, files = (
            final.with_name(f".{final.name}.tmp"),
            trainer.accelerator.is_main_process,
            (),
        )
        with _raise_on_all_ranks():
            if main:
                _start_checkpoint(final)
                sampling = self.sampling or _sampling_settings(trainer)
                files = (weights, average, rest, _run_settings(trainer), trainer.raw_model, sampling)
        futures = [self._write_shards(trainer, temporary / _SHARDS)]
        if main:
            executor = ThreadPoolExecutor(1)
            futures.append(executor.submit(_write_files, temporary, *files))
            executor.shutdown(wait=False)
        self._writing = final, futures
        return final

    def _write_shards(self, trainer, folder: Path) -> Future:
        "Begin to write this process's shards of the optimizer's moments."
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint import state_dict

        alone = trainer.accelerator.num_processes == 1
        if not alone and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")
        moments = state_dict.get_optimizer_state_dict(trainer.raw_model, trainer.optimizer.optimizer)
        copied = tree_map_only(torch.Tensor, lambda moment: moment.to("cpu", copy=True), moments)
        saving = dcp.async_save(copied, checkpoint_id=folder, process_group=self._group, no_dist=alone)
        return cast(Future, saving)

    def finish(self, trainer) -> None:
        """Wait until the checkpoint that is being written is complete. All ranks must call this.

        Args:
            trainer: the run

        Raises:
            UserError: if it could not be written
        """
        if self._writing is None:
            return
        (final, futures), self._writing = self._writing, None
        with _raise_on_all_ranks():
            for future in futures:
                _result(future)
        with _raise_on_all_ranks():
            if trainer.accelerator.is_main_process:
                os.replace(final.with_name(f".{final.name}.tmp"), final)
                self._remove_old()


def _result(future: Future) -> None:
    "Wait for files to be written; raise the OSError that torch.distributed.checkpoint wraps, or a sentence."
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        future.result()
    except CheckpointException as error:  # a BaseException, with the error of each process
        errors = [failure[0] for failure in error.failures.values()]
        system = next((e for e in errors if isinstance(e, OSError)), None)
        raise system or UserError(f"Shards of a checkpoint cannot be written: {errors[0]}.") from None
