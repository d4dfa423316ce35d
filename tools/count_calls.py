"""Count the package's functions that one training step and one sampling call enter, by file.

python tools/count_calls.py [train] [sample]
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import dit_nb
from dit_nb import Diffusion, DiT, DiTConfig, SamplingConfig, sample_images
from dit_nb.config import TrainConfig
from dit_nb.data import digits
from dit_nb.training import Trainer

PACKAGE = Path(dit_nb.__file__).parent
CONFIG = DiTConfig(8, 2, 1, 32, 2, 4, num_classes=10)


def functions_entered(call: Callable[[], object]) -> dict[str, set[str]]:
    "Run `call` under sys.setprofile; return the names of our functions that were entered, by file."
    entered = defaultdict(set)

    def profile(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)) and code.co_name[0] != "<":
            name = getattr(code, "co_qualname", f"{code.co_name}:{code.co_firstlineno}")
            entered[str(Path(code.co_filename).relative_to(PACKAGE))].add(name)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


def train_step() -> dict[str, set[str]]:
    "Functions of one `Trainer.step`, after a first step that fills caches."
    trainer = Trainer(DiT(CONFIG), Diffusion(bins=17), digits().train, TrainConfig(steps=5, batch_size=8))
    batches = trainer.batches()
    trainer.step(next(batches))
    batch = next(batches)
    return functions_entered(lambda: trainer.step(batch))


def sampling_call() -> dict[str, set[str]]:
    "Functions of a second call of `sample_images`, with the default settings."
    torch.manual_seed(0)
    model, sampling = DiT(CONFIG).eval(), SamplingConfig(steps="3")
    call = partial(sample_images, model, sampling, torch.arange(4), progress=False)
    call()  # fills caches
    return functions_entered(call)


def main(names: list[str]) -> None:
    "Print the functions of each job, by file."
    for name, job in {"train": train_step, "sample": sampling_call}.items():
        if name in names or not names:
            files = job()
            print(f"{name}: {sum(map(len, files.values()))} functions in {len(files)} files")
            for file in sorted(files):
                print(f"  {file}: {', '.join(sorted(files[file]))}")


if __name__ == "__main__":
    main(sys.argv[1:])
