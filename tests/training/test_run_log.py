"""Logs of a run: rows of the CSV files, also after a kill and a resume, and the trackers."""

import csv
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from dit_nb.callbacks import SampleImages, Validation
from dit_nb.data import digits
from dit_nb.run_log import _MetricsTable, _wandb_options
from dit_nb.training import learning_rate
from support import raises_input_error
from support_training import TRAIN, make_trainer


def read(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_starts_with_its_columns(tmp_path):
    table = _MetricsTable(tmp_path / "a.csv")
    table.add(1, {"loss": 0.5, "lr": 1e-4})
    table.add(2, {"loss": float("inf"), "lr": 1e-4})
    assert (tmp_path / "a.csv").read_text().splitlines() == ["step,loss,lr", "1,0.5,0.0001", "2,inf,0.0001"]
    _MetricsTable(None).add(1, {"loss": 0.5})


LEFT = {  # what a killed run left -> what a run resumed at step 20 keeps
    "": [],
    "step,loss\n": [],
    "step,loss\n10,1.0\n20,2.0\n30,3.0\n": ["10"],
    "step,loss\n10,1.0\n15,2": ["10", "15"],
    "step,loss\n10,1.0\n15": ["10"],
    "step,loss\n10,1.0\nx,y\n": ["10"],
    "step,mse\n10,1.0\n": [],
    "\0\0\0": [],
    "step,loss\n10,1.0\n15,0.u\n": ["10"],
    "step,loss\n10,1.0\n15,1.2.3\n": ["10"],
    "step,loss\n10,1.0\n15,-1.5e-05\n16,inf\n17,nan\n": ["10", "15", "16", "17"],
    "step,loss\n10,1.0\n²,1.0\n": ["10"],
    f"step,loss\n{'9' * 5000},1.0\n10,1.0\n": ["10"],
    f'step,loss\n10,"{"a" * 200_000}': [],
    'step,loss\n10,1.0\n"15,1.0\n16,1.0\n': ["10", "16"],
}


@pytest.mark.parametrize("left", LEFT, ids=range(len(LEFT)))
def test_a_resumed_run_continues_the_table(tmp_path, left):
    (tmp_path / "a.csv").write_text(left)
    _MetricsTable(tmp_path / "a.csv").add(20, {"loss": 0.5})
    assert [row["step"] for row in read(tmp_path / "a.csv")] == [*LEFT[left], "20"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_bytes_that_are_no_text_are_left_out(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"step,loss\r\n10,1.0\r\n11,\xff\xfe\r\n")
    _MetricsTable(tmp_path / "a.csv").add(20, {"loss": 0.5})
    assert [row["step"] for row in read(tmp_path / "a.csv")] == ["10", "20"]


def test_a_folder_in_the_place_of_a_table_is_refused(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with raises_input_error("a.csv, but is a folder"):
        _MetricsTable(tmp_path / "a.csv").add(20, {"loss": 0.5})


def test_a_row_that_does_not_fit_on_the_disk_is_not_half_there(tmp_path):
    resource = pytest.importorskip("resource")
    path, limit = tmp_path / "a.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    table = _MetricsTable(path)
    table.add(1, {"loss": 0.5})
    whole = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 3, limit[1]))
    try:
        with pytest.raises(OSError):
            table.add(2, {"loss": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == whole
    table.add(2, {"loss": 0.25})
    assert [row["loss"] for row in read(path)] == ["0.5", "0.25"]


def test_rows_are_means_since_the_last_row(tmp_path):
    config = replace(TRAIN, steps=7, log_every=3, lr_schedule="cosine")
    trainer = make_trainer(config, out=tmp_path)
    norms = []
    trainer.on_step = (lambda trainer, losses: norms.append(float(trainer.grad_norm)),)
    trainer.fit(progress=False)
    rows, history = read(tmp_path / "metrics.csv"), trainer.progress.history
    assert list(rows[0]) == ["step", "seconds", "lr", "images_per_second", "grad_norm", "loss", "mse", "vb"]
    assert [row["step"] for row in rows] == ["3", "6", "7"]
    for row, steps in zip(rows, (slice(0, 3), slice(3, 6), slice(6, 7))):
        for name in ("loss", "mse", "vb"):
            assert float(row[name]) == pytest.approx(np.mean(history[name][steps]), rel=1e-4)
        assert float(row["grad_norm"]) == pytest.approx(np.mean(norms[steps]), rel=1e-4)
        done = int(row["step"]) - 1
        assert float(row["lr"]) == pytest.approx(learning_rate(config, done, done / 7), rel=1e-4)
        assert float(row["images_per_second"]) > 0 and float(row["seconds"]) > 0


def test_the_gradient_norm_is_that_before_clipping():
    clipped, free = (make_trainer(replace(TRAIN, grad_clip=clip)) for clip in (1e-3, None))
    for trainer in (clipped, free):
        trainer.step(next(trainer.batches()))
    assert float(clipped.grad_norm) == pytest.approx(float(free.grad_norm)) and free.grad_norm > 1e-2


def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(tmp_path):
    config = replace(TRAIN, steps=6, log_every=1, save_every=3)

    def run(out, **parts):
        return make_trainer(config, out=tmp_path / out, **parts)

    def stop(trainer, losses):
        if trainer.progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("a", on_step=[stop]).fit(progress=False)
    assert [row["step"] for row in read(tmp_path / "a" / "metrics.csv")][-1] in ("4", "5")
    resumed = run("a")
    resumed.resume()
    resumed.fit(progress=False)
    run("b").fit(progress=False)
    rows = [read(tmp_path / out / "metrics.csv") for out in ("a", "b")]
    for name in ("step", "loss", "mse", "vb", "grad_norm", "lr"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]], name


def test_validation_is_logged_in_a_table_of_its_own(tmp_path):
    validation = Validation(2, digits().held_out, repeats=1)
    make_trainer(out=tmp_path, on_step=[validation]).fit(progress=False)
    rows = read(tmp_path / "validation.csv")
    assert [row["step"] for row in rows] == ["2", "4"] and list(rows[0]) == ["step", "loss", "mse", "vb"]


# Trackers


def sample(model):
    return torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()


def tracked_run(out, tracker: str, **changes):
    parts = [Validation(2, digits().held_out, repeats=1), SampleImages(2, sample)]
    config = replace(TRAIN, tracker=tracker, log_every=1, **changes)
    return make_trainer(config, out=out, on_step=parts)


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked_run(tmp_path, "tensorboard").fit(progress=False)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    names = {"loss", "mse", "vb", "grad_norm", "lr", "images_per_second", "validation/loss"}
    assert names <= set(events.Tags()["scalars"])
    steps, losses = zip(*((event.step, event.value) for event in events.Scalars("loss")))
    assert steps == (1, 2, 3, 4)
    wanted = [float(row["loss"]) for row in read(tmp_path / "metrics.csv")]
    assert losses == pytest.approx(wanted, rel=1e-4)
    assert [event.step for event in events.Images("samples")] == [2, 4]


class FakeWandB(ModuleType):
    """The part of wandb that Accelerate calls."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.rows, self.finished = [], [], 0
        self.config = SimpleNamespace(update=lambda values, **_: self.inits[-1].update(settings=values))
        self.Image = lambda image: ("image", image.shape)

    def init(self, **options):
        self.inits.append(options)
        return self

    def log(self, values, step):
        assert all(step >= earlier for earlier, _ in self.rows), "W&B drops rows of earlier steps"
        self.rows.append((step, values))

    def finish(self):
        self.finished += 1


def test_weights_and_biases(tmp_path, monkeypatch):
    """Settings, rows, validation and samples; a resumed run continues the same run."""
    from accelerate.utils import LoggerType

    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    fake.__spec__ = SimpleNamespace(name="wandb")
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.WANDB])
    tracked_run(tmp_path / "run", "wandb", steps=2).fit(progress=False)
    assert fake.inits[0]["project"] == "dit_nb" and fake.inits[0]["name"] == "run"
    assert fake.inits[0]["settings"]["lr"] == TRAIN.lr and fake.finished == 1
    names = {name for _, row in fake.rows for name in row}
    assert {"loss", "lr", "grad_norm", "images_per_second", "validation/loss", "samples"} <= names
    assert [step for step, row in fake.rows if "loss" in row] == [1, 2]
    assert ("image", (4, 4, 3)) in [row["samples"][0] for _, row in fake.rows if "samples" in row]
    resumed = tracked_run(tmp_path / "run", "wandb")
    resumed.resume()
    resumed.fit(progress=False)
    first, second = fake.inits
    assert first["id"] == second["id"] and second["resume"] == "allow"
    assert [step for step, row in fake.rows if "loss" in row] == [1, 2, 3, 4]


def test_the_id_of_a_run_is_kept_or_refused(tmp_path):
    first = _wandb_options(tmp_path)["id"]
    assert _wandb_options(tmp_path)["id"] == first
    for damaged in (b"", first[:5].encode(), first.upper().encode() + b"g", b"\xff" * 8, b"../../x.", b"{}"):
        (tmp_path / "logs" / "wandb-id").write_bytes(damaged)
        with raises_input_error(f"{tmp_path}/logs/wandb-id must hold the id .*remove it"):
            _wandb_options(tmp_path)
    (tmp_path / "logs" / "wandb-id").unlink()
    assert len(_wandb_options(tmp_path)["id"]) == 8
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["wandb-id"]


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked_run(tmp_path, "wandb").fit(progress=False)
    wandb.teardown()
    assert list((tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_whose_package_is_missing(tmp_path, monkeypatch):
    from dit_nb import run_log

    monkeypatch.setattr(run_log, "find_spec", lambda name: None)
    with raises_input_error("tracker is 'tensorboard'.*pip install tensorboard"):
        tracked_run(tmp_path, "tensorboard").fit(progress=False)
