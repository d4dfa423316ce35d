"""One of the processes that test_distributed.py starts: `worker.py OUT ddp|fsdp CASE...`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from dit_nb import checkpoint, distributed, training
from dit_nb.callbacks import SampleImages
from dit_nb.training import Trainer
from support_training import HALFWAY, TRAIN, Latents, fit, fit_case, fit_second_half, make_trainer


class BrokenOnRank1(Latents):
    """A data set with an image that only rank 1 reads, and cannot, in the second update."""

    def get_batch(self, indices):
        self.calls = getattr(self, "calls", 0) + 1
        if distributed._process_state().process_index == 1 and self.calls == 2:
            raise ValueError("image 5.jpg cannot be read.")
        return super().get_batch(indices)


def disk_full(*_):
    raise OSError(28, "No space left on device")


def errors(out: Path) -> list[str]:
    """The messages with which runs end if one process fails: an image, the settings, the disk."""
    found = []
    for config, data in ((TRAIN, BrokenOnRank1()), (replace(TRAIN, batch_size=7), None), (HALFWAY, None)):
        if config is HALFWAY:
            checkpoint._write_checkpoint = disk_full
        try:
            make_trainer(config, data=data, out=out / "broken").fit(progress=False)
        except ValueError as error:
            found.append(str(error))
    return found


def watch_writing(folder: Path) -> list[str]:
    """A list that grows with whatever this process writes in a folder from now on."""
    written = []

    def hook(event, arguments):
        opened = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        if (opened or event in ("os.mkdir", "os.rename", "os.rmdir", "os.remove")) and str(folder) in str(
            arguments[0]
        ):
            written.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)
    return written


def work(out: Path, cases: list[str]) -> None:
    """Do everything in one go: starting processes is what takes time."""
    training._shutdown = lambda: None  # it would end the connection, and we train again
    state, written = distributed._process_state(), watch_writing(out)
    results = {name: fit_case(name) for name in cases}
    results["one process, then two"] = fit_second_half(out / "one")
    background = out.parent / "background"  # to which both processes write
    fit(make_trainer(replace(HALFWAY, background_save=True), out=background))
    results["in the background, then two"] = fit_second_half(background)
    sampled_with = []

    def sample(model):
        sampled_with.append(model)
        return torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()

    trainer = make_trainer(HALFWAY, out=out / "two", on_step=[SampleImages(1, sample)])
    trainer.fit()
    parameters = [p for model in sampled_with for p in model.parameters()]
    facts = {"sample images": len(sampled_with)}
    facts["sampled with full weights"] = all(type(p).__name__ == "Parameter" for p in parameters)
    facts["local weights"] = sum(
        getattr(p, "to_local", lambda p=p: p)().numel() for p in trainer.ema.model.parameters()
    )
    facts |= {"errors": errors(out), "written": written if state.process_index else []}
    if state.is_main_process:
        torch.save(results, out / "results.pt")
    (out.parent / f"facts{state.process_index}.json").write_text(json.dumps(facts))
    distributed._shutdown()


def shard_on_a_cpu() -> None:
    """Let Accelerate take this CPU for a GPU: it shards models on accelerators only."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    distributed._process_state()
    real = Trainer.__init__

    def init(self, *args, **options):
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        real(self, *args, **options)

    Trainer.__init__ = init


if __name__ == "__main__":
    if sys.argv[2] == "fsdp":
        shard_on_a_cpu()
    work(Path(sys.argv[1]), sys.argv[3:])
