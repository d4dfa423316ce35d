"""Generated calls of the public functions: each returns what it should, or raises a UserError that names the argument.

A call is made of good arguments, of which one or two are replaced by any value whatever.
"""

import copy
import math
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dit_nb import Diffusion, DiT, DiTConfig, Guided, SamplingConfig, TrainConfig, load_model, sample_images
from dit_nb.cost import cost
from dit_nb.data import ImageSet, image_grid
from dit_nb.errors import UserError
from dit_nb.evaluation import frechet_distance, precision_recall
from dit_nb.few_steps import dpm_solver_sample, respaced_by_log_snr
from dit_nb.finetune import fit_model, freeze
from dit_nb.image_files import open_images
from dit_nb.interop.convert import load_any
from dit_nb.interop.official import save_official
from dit_nb.measure import evaluate
from dit_nb.objective import bits_per_dim
from dit_nb.pretrained import digit_model, make_diffusion, sample_batches, save_model
from dit_nb.sample_files import save_npz
from dit_nb.sampling import ddim_sample, ddpm_sample
from dit_nb.schedule import cosine_betas, linear_betas, space_timesteps
from dit_nb.speed import InferenceModel
from dit_nb.training import Trainer
from dit_nb.utils import randn, seeded_generator

pytestmark = pytest.mark.hard

MODEL = DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3)).eval()
FAST = InferenceModel(MODEL)
DIFFUSION = Diffusion(num_timesteps=20, bins=17)
SAMPLING = SamplingConfig(num_timesteps=20, steps="2", class_names=("a", "b", "c"))
IMAGES = torch.linspace(-1, 1, 12 * 64).view(12, 1, 8, 8).mul(8).round().div(8)
DATA = ImageSet(IMAGES, torch.arange(12) % 3, ("a", "b", "c"))
FOLDER = Path(tempfile.mkdtemp())
save_model(MODEL, FOLDER / "model", SAMPLING)
QUICK = {"precision": "fp32", "batch_size": 4}


@dataclass
class Call:
    "A function, good values for each of its arguments, and what must hold for its result."

    function: Callable
    good: dict[str, list]
    holds: Callable = lambda result, values: True
    names: dict[str, str] = field(default_factory=dict)  # argument -> what a message may say in its place


def finite(x, values=None) -> bool:
    given = [v for v in (values or {}).values() if isinstance(v, torch.Tensor)]
    if not all(v.isfinite().all() for v in given):
        return True  # NaN in, NaN out
    return bool(
        torch.as_tensor(np.asarray(x.detach() if isinstance(x, torch.Tensor) else x)).isfinite().all()
    )


def shaped(*shape):
    return lambda x, values: tuple(x.shape) == shape and finite(x, values)


def fit(model, diffusion, data, config, out):
    model = copy.deepcopy(model) if isinstance(model, DiT) else model  # it is trained in place
    trainer = Trainer(model, diffusion, data, config, out)
    trainer.step(next(trainer.batches()))
    return trainer


X, T, Y = IMAGES[:2], torch.tensor([0, 5]), torch.tensor([0, 2])
SHAPE = (2, 1, 8, 8)
EVALUATE = {
    "resamples": [0, 3],
    "progress": [False],
    "batch_size": [5, 64],
    "k": [1, 2],
    "level": [0.9],
    "seed": [0, 1],
}
SAMPLER = {
    "diffusion": [DIFFUSION.respaced("2")],
    "model": [MODEL, Guided(MODEL, 2.0)],
    "shape": [SHAPE],
    "y": [Y],
}
SAMPLER |= {"x_T": [None, X], "clip_x0": [True, False], "progress": [False], "generator": [None]}
CALLS = {
    "DiTConfig": Call(
        DiTConfig,
        {
            "input_size": [8, (8, 4)],
            "patch_size": [2, 4],
            "in_channels": [1, 4],
            "hidden_size": [16],
            "depth": [1],
            "num_heads": [2],
            "mlp_ratio": [4.0, 1],
            "num_classes": [0, 3],
            "class_dropout_prob": [0.1, 0],
            "learn_sigma": [True, False],
            "block": ["adaln", "in_context"],
            "init": ["paper", "scaled"],
        },
        lambda config, values: (
            DiT(config)(
                torch.zeros(1, *config.image_shape), T[:1], T[:1] if config.num_classes else None
            ).shape[0]
            == 1
        ),
    ),
    "TrainConfig": Call(
        TrainConfig,
        {
            "steps": [3],
            "seconds": [None],
            "batch_size": [4],
            "grad_accum_steps": [1],
            "lr": [1e-3],
            "warmup_steps": [0, 3],
            "lr_schedule": ["cosine"],
            "beta2": [0.99],
            "weight_decay": [0.0, 1],
            "grad_clip": [None, 1.0],
            "ema_decay": [0, 0.9],
            "precision": ["fp32"],
            "flip": [True],
            "compile": [False],
            "seed": [0],
            "save_every": [None, 5],
            "keep": [1],
            "log_every": [10],
            "num_workers": [0],
        },
    ),
    "SamplingConfig": Call(
        SamplingConfig,
        {
            "schedule": ["linear", "cosine", (0.1, 0.2)],
            "num_timesteps": [20],
            "variance": ["learned", "fixed_small"],
            "bins": [17],
            "clip_x0": [True],
            "sampler": ["ddim"],
            "steps": ["2", 2],
            "cfg_scale": [1.0, 2],
            "guided_channels": [None, 1],
            "class_names": [None, ("a", "b", "c")],
            "vae": [None, {"id": "x"}],
            "card": [{}, {"data": "x"}],
        },
        lambda config, values: (
            isinstance(config.schedule, tuple) or make_diffusion(config).num_timesteps == config.num_timesteps
        ),
    ),
    "DiT": Call(
        DiT, {"config": [MODEL.config], "y_embedder": [None]}, lambda model, values: isinstance(model, DiT)
    ),
    "DiT.forward": Call(
        MODEL,
        {"x": [X], "t": [T, T.float()], "y": [Y], "drop": [None, torch.tensor([True, False])]},
        shaped(2, 2, 8, 8),
        {"x": "x|t|y"},
    ),
    "InferenceModel": Call(
        lambda model, precision: InferenceModel(model, precision)(X, T, Y),
        {"model": [MODEL], "precision": ["fp32"]},
        shaped(2, 2, 8, 8),
    ),
    "InferenceModel.__call__": Call(FAST, {"x": [X], "t": [T], "y": [Y]}, shaped(2, 2, 8, 8), {"x": "x|t|y"}),
    "Diffusion": Call(
        Diffusion,
        {
            "schedule": ["linear", torch.tensor([0.1, 0.2])],
            "num_timesteps": [20],
            "variance": ["learned"],
            "bins": [17],
        },
        lambda diffusion, values: finite(diffusion.alphas_cumprod),
        {"schedule": "betas|schedule"},
    ),
    "Diffusion.respaced": Call(
        DIFFUSION.respaced, {"spec": ["2", 3, "ddim5"]}, lambda d, _: finite(d.betas), {"spec": "steps"}
    ),
    "Diffusion.q_sample": Call(
        DIFFUSION.q_sample,
        {"x0": [X], "t": [T], "noise": [X]},
        lambda x, values: x.shape == values["x0"].shape and finite(x, values),
        {"x0": "x0|x|t|noise"},
    ),
    "Diffusion.training_losses": Call(
        DIFFUSION.training_losses,
        {"model": [MODEL], "x0": [X], "t": [T], "y": [Y], "noise": [None, X]},
        lambda losses, values: all(loss.shape == (2,) and finite(loss, values) for loss in losses.values()),
        {"x0": "x0|x|t|noise", "model": "model", "noise": "noise|x"},
    ),
    "Diffusion.p_mean_variance": Call(
        DIFFUSION.p_mean_variance,
        {
            "model": [MODEL],
            "x_t": [X],
            "t": [T],
            "y": [Y],
            "clip_x0": [True],
            "variance": [None, "fixed_small"],
        },
        lambda prediction, values: prediction.mean.shape == SHAPE and finite(prediction.mean, values),
        {"x_t": "x_t|x|t"},
    ),
    "bits_per_dim": Call(
        bits_per_dim,
        {
            "diffusion": [DIFFUSION],
            "model": [MODEL],
            "x0": [X],
            "y": [Y],
            "clip_x0": [True],
            "generator": [None],
            "progress": [False],
        },
        lambda bits, values: bits["total"].shape == (2,) and finite(bits["total"], values),
        {"x0": "x0|x|y"},
    ),
    "ddpm_sample": Call(ddpm_sample, SAMPLER, shaped(*SHAPE), {"shape": "shape|y|x_T"}),
    "ddim_sample": Call(ddim_sample, {**SAMPLER, "eta": [0.0, 1]}, shaped(*SHAPE), {"shape": "shape|y|x_T"}),
    "dpm_solver_sample": Call(
        dpm_solver_sample, {**SAMPLER, "order": [1, 2]}, shaped(*SHAPE), {"shape": "shape|y|x_T"}
    ),
    "respaced_by_log_snr": Call(
        respaced_by_log_snr, {"diffusion": [DIFFUSION], "steps": [1, 5]}, lambda d, _: finite(d.betas)
    ),
    "space_timesteps": Call(
        space_timesteps,
        {"num_timesteps": [20], "spec": ["2", "3,4", "ddim5"]},
        lambda kept, values: (
            kept == sorted(set(kept)) and 0 <= kept[0] and kept[-1] < values["num_timesteps"]
        ),
        {"spec": "steps"},
    ),
    "linear_betas": Call(linear_betas, {"num_timesteps": [1, 20]}, finite),
    "cosine_betas": Call(cosine_betas, {"num_timesteps": [1, 20]}, finite),
    "Guided": Call(
        lambda model, cfg_scale, guided_channels, null_class: Guided(
            model, cfg_scale, guided_channels, null_class
        )(X, T, Y),
        {
            "model": [MODEL],
            "cfg_scale": [1, 2.5, -1.0],
            "guided_channels": [None, 1],
            "null_class": [None, 3],
        },
        shaped(2, 2, 8, 8),
        {"null_class": "null_class|y"},
    ),
    "sample_images": Call(
        sample_images,
        {
            "model": [MODEL, FAST],
            "sampling": [SAMPLING],
            "labels": [Y, [0, 2], ["a", "c"]],
            "n": [None, 2],
            "seed": [0, 7],
            "first": [0, 3],
            "callback": [None],
            "progress": [False],
        },
        lambda x, values: x.shape[1:] == SHAPE[1:] and finite(x),
        {"labels": "labels|n"},
    ),
    "sample_batches": Call(
        lambda **options: list(
            sample_batches(**options, sample=lambda *a, **k: sample_images(*a, **k, progress=False))
        ),
        {
            "model": [FAST],
            "sampling": [SAMPLING],
            "labels": [Y, [0, 2]],
            "n": [2],
            "seed": [0],
            "batch_size": [1, 64],
            "rank": [0],
            "world_size": [1],
            "start": [0],
        },
        lambda batches, _: all(finite(images) for _, images in batches),
        {"labels": "labels|n|y"},
    ),
    "make_diffusion": Call(make_diffusion, {"sampling": [SAMPLING]}, lambda d, _: d.num_timesteps == 20),
    "ImageSet": Call(
        ImageSet,
        {"images": [IMAGES[:3]], "labels": [torch.tensor([0, 1, 0])], "class_names": [("a", "b")]},
        lambda data, _: len(data) == len(data.labels),
        {"images": "images|labels", "class_names": "class_names|labels"},
    ),
    "image_grid": Call(
        image_grid,
        {"images": [IMAGES], "columns": [1, 5, 99], "zoom": [1, 2]},
        lambda a, _: a.dtype == np.uint8,
    ),
    "Trainer": Call(
        fit,
        {
            "model": [MODEL],
            "diffusion": [DIFFUSION],
            "data": [DATA],
            "config": [TrainConfig(steps=1, **QUICK)],
            "out": [None, FOLDER / "run"],
        },
        lambda trainer, _: trainer.progress.step == 1,
    ),
    "fit_model": Call(
        fit_model,
        {
            "model": [MODEL],
            "input_size": [None, 8, (4, 8)],
            "class_names": [None, ("c", "d")],
            "known": [None, ("a", "b", "c")],
        },
        lambda found, _: isinstance(found[0], DiT),
    ),
    "freeze": Call(
        lambda model, patterns, unfreeze: freeze(copy.deepcopy(model), patterns, unfreeze),
        {"model": [MODEL], "patterns": ["backbone", ["blocks.*"], ()], "unfreeze": [(), "*bias"]},
        lambda n, _: n > 0,
        {"patterns": "freeze", "model": "model|freeze"},
    ),
    "digit_model": Call(
        digit_model,
        {"device": [None, "cpu"], "dtype": [None, torch.bfloat16]},
        lambda found, _: isinstance(found[0], DiT),
    ),
    "load_model": Call(
        load_model,
        {
            "folder": [FOLDER / "model"],
            "y_embedder": [None],
            "device": ["cpu"],
            "dtype": [None],
            "weights": ["ema"],
        },
        lambda found, _: isinstance(found[0], DiT),
        {"folder": "source|folder"},
    ),
    "load_any": Call(
        load_any,
        {
            "source": [FOLDER / "model"],
            "num_heads": [None],
            "num_classes": [None],
            "weights": ["ema", "model"],
            "device": ["cpu"],
        },
        lambda found, _: isinstance(found[0], DiT),
        {"source": "source|folder"},
    ),
    "save_model": Call(
        save_model,
        {"model": [MODEL], "folder": [FOLDER / "saved"], "sampling": [SAMPLING]},
        lambda _, values: load_model(values["folder"])[1] == SAMPLING,
    ),
    "save_official": Call(
        save_official,
        {
            "model": [MODEL],
            "path": [FOLDER / "a.pt"],
            "sampling": [None, SAMPLING],
            "training": [False, True],
            "ema": [None, MODEL],
        },
    ),
    "save_npz": Call(
        save_npz,
        {
            "path": [FOLDER / "a.npz"],
            "batches": [[IMAGES], [np.zeros((12, 8, 8, 3), np.uint8)]],
            "labels": [None, [0] * 12],
            "n": [12],
        },
        lambda _, values: np.load(values["path"])["arr_0"].shape[:3] == (12, 8, 8),
        {"labels": "labels|batches"},
    ),
    "evaluate": Call(
        evaluate,
        {
            "samples": [IMAGES, IMAGES.numpy()],
            "reference": [DATA],
            "features": [None, "digits"],
            "max_features": [12],
            **EVALUATE,
        },
        lambda result, _: all(math.isfinite(row["value"]) for row in result["metrics"].values()),
        {"samples": "samples|images", "reference": "reference|images"},
    ),
    "frechet_distance": Call(
        frechet_distance,
        {"a": [np.eye(3)], "b": [np.eye(3) + 1]},
        lambda distance, _: 0 <= distance < math.inf,
    ),
    "precision_recall": Call(
        precision_recall,
        {"real": [np.eye(5)], "fake": [np.eye(5) + 1], "k": [1, 3]},
        lambda pair, _: all(0 <= value <= 1 for value in pair),
        {"real": "real|reference|points", "fake": "fake|points|reference"},
    ),
    "cost": Call(cost, {"config": [MODEL.config]}, lambda c, _: sum(c.params.values()) > 0),
    "randn": Call(
        randn,
        {
            "shape": [SHAPE],
            "generator": [None, [seeded_generator(1), seeded_generator(2)]],
            "device": [None, "cpu"],
        },
        lambda noise, values: tuple(noise.shape) == tuple(values["shape"]) and finite(noise),
    ),
    "seeded_generator": Call(
        lambda key: seeded_generator(key), {"key": [0, 5]}, lambda g, _: isinstance(g, torch.Generator)
    ),
    "open_images": Call(
        open_images,
        {"data": ["digits"], "size": [None, 8], "channels": [1, 3], "skip_bad": [False]},
        lambda data, _: len(data) == 1437,
    ),
}

TENSORS = [
    torch.zeros(2), torch.zeros(2, dtype=torch.long), torch.tensor([-1, 2]), torch.tensor([0, 10**6]), torch.tensor(3),
    torch.tensor([math.nan, 1.0]), torch.tensor([math.inf, 1.0]), X, X[0], X[:1], X.permute(0, 2, 3, 1), X.double(), X.half(),
    (X * 100).byte(), X * math.nan, X.expand(2, 3, 8, 8), Y.int(), Y.bool(), torch.eye(3)[:2],
    torch.zeros(0, 1, 8, 8), torch.zeros(0), torch.zeros(12, 1, 8, 8), X.cfloat(),
]  # fmt: skip
ARRAYS = [
    np.zeros(2), np.zeros((2, 1, 8, 8)), np.array(3), np.int64(3), np.float32(2), np.array(["a"]), np.array([None]),
    np.full((4, 3), np.nan), np.zeros((12, 8, 8, 3), np.uint8), np.zeros((0, 3)),
]  # fmt: skip
OBJECTS = [
    None, True, False, object(), b"bytes", Path("nowhere"), "nowhere", "./no/where", lambda: None, lambda *a, **k: X, int, 1j,
    10**30, -(10**30), 10**400, "4", "", "linear", "a", [], (), {}, {"a": 1}, [1, 2], [0, 99], ["a"], ["z"], [None], [[1], [2, 3]],
    (8, 8), (8, 8, 8), (0, 4), (2.5, 4), ("a", "a"), {1, 2}, range(3), iter([1]), MODEL, MODEL.config, FAST, DIFFUSION, SAMPLING,
    DATA, TrainConfig(steps=1, **QUICK), torch.nn.Linear(2, 2), torch.float16, torch.int8, "cuda:99", "meta", "bfloat16", SHAPE,
    (2, 1, 8), (0, 1, 8, 8), (-1, 1, 8, 8), (2, 1, 8, 2.5), DiT, seeded_generator(0), [seeded_generator(0)], type,
]  # fmt: skip
ANY = st.one_of(
    st.sampled_from(TENSORS),
    st.sampled_from(ARRAYS),
    st.sampled_from(OBJECTS),
    st.integers(-3, 99),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.one_of(st.integers(-2, 5), st.floats(), st.text(max_size=2), st.none()), max_size=3),
)


def outcome(name: str, values: dict, replaced: list[str]) -> str:
    "Make a call: `accepted`, or `refused`. Anything else is an AssertionError."
    call = CALLS[name]
    shown = ", ".join(f"{k}={values[k]!r}"[:120] for k in replaced)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call.function(**values)
    except (UserError, FileNotFoundError, ImportError) as error:
        message = str(error)
        known = "|".join(call.names.get(argument, argument) for argument in replaced)
        assert re.search(rf"\b({known})\b", message), f"{name}({shown}) does not name it: {message}"
        assert "\n" not in message and message.endswith("."), f"{name}({shown}): {message}"
        return "refused"
    except Exception as error:
        own = {k for k in ("model", "callback", "features") if callable(values.get(k))}
        if own & set(replaced) or (name == "Trainer" and "data" in replaced):
            return "refused"  # an error of a function or a data set of the caller
        raise AssertionError(f"{name}({shown}) raises {type(error).__name__}: {error}") from error
    assert call.holds(result, values), f"{name}({shown}) is accepted, and its result is wrong: {result!r}"[
        :500
    ]
    return "accepted"


COUNT = 70  # generated calls of each function


@pytest.mark.parametrize("name", CALLS)
def test_good_calls(name):
    "Calls with good arguments"
    call = CALLS[name]
    for i in range(max(map(len, call.good.values()))):
        values = {k: options[i % len(options)] for k, options in call.good.items()}
        assert outcome(name, values, []) == "accepted"


@pytest.mark.parametrize("name", CALLS)
def test_generated_calls(name, cases):
    "Generated calls with wrong arguments: right, or a sentence that names the argument"
    call, seen = CALLS[name], []

    @settings(
        max_examples=COUNT,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data):
        values = {k: data.draw(st.sampled_from(options)) for k, options in call.good.items()}
        replaced = data.draw(st.lists(st.sampled_from(list(values)), min_size=1, max_size=2, unique=True))
        values |= {argument: data.draw(ANY) for argument in replaced}
        seen.append(outcome(name, values, replaced))
        cases.add()

    run()
    assert len(seen) >= COUNT


def test_there_are_enough_of_them():
    "2,500 or more generated calls"
    assert len(CALLS) * COUNT >= 2500
