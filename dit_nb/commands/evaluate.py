"""`dit-nb evaluate`: compare samples with real images, as a table or as JSON."""

import json
import math
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dit_nb.commands.data import _describe_data, _parse_size, _ranks
from dit_nb.commands.networks import _describe_network
from dit_nb.commands.options import Evaluate
from dit_nb.commands.sample import _load_decoder
from dit_nb.config import SamplingConfig
from dit_nb.data import _to_uint8
from dit_nb.distributed import _main_process_first, _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError, _check_number
from dit_nb.features import _open_extractor, _shape_text
from dit_nb.hub import _model_folder
from dit_nb.interop.convert import load_any
from dit_nb.measure import _check_counts, _measure, _open_both, _Settings
from dit_nb.model import DiT
from dit_nb.pretrained import sample_batches, sample_images
from dit_nb.sample_files import _ImageSource, _open_image_source
from dit_nb.speed import InferenceModel, _tf32, fast_cpu

__all__ = []

_TITLES = {
    "frechet": "Fréchet distance",
    "spatial_frechet": "spatial Fréchet distance",
    "inception_score": "inception score",
    "precision": "precision",
    "recall": "recall",
}


def _metrics_table(result: dict) -> str:
    samples, reference = result["samples"], result["reference"]
    real = f"{reference['n']} images" if reference["n"] else "statistics"
    head = f"{samples['n']} images of {samples['name']} against {real} of {reference['name']}"
    interval = f"{100 * result['level']:.4g} % interval".rjust(24) if result["resamples"] else ""
    rows = [f"{_TITLES[k]:<26}{row['value']:>10.4g}{_interval(row)}" for k, row in result["metrics"].items()]
    return "\n".join([f"{head}, features: {result['features']}", f"{'':<26}{'value':>10}{interval}", *rows])


def _interval(row: dict) -> str:
    "A confidence interval, and the bias of a distance due to the number of samples."
    if "low" not in row:
        return ""
    ends = f"{row['low']:.4g} to {row['high']:.4g}".rjust(24)
    return ends + (f"   (bias about {row['bias']:.3g})" if "bias" in row else "")


def _open_sources(options: Evaluate) -> tuple[_ImageSource, _ImageSource]:
    """Open samples and reference, and print what was found to stderr. The reference is cropped to the samples' size.

    All ranks must call this.
    """
    size, ranks = _parse_size(options.image_size), {"ranks": _ranks()}
    if _names_model(options.samples):
        with _raise_on_all_ranks():
            model, sampling = _load_model(options)
            mine = _sample_source(options, model, sampling)
        _print_source("samples", mine)
        network = _describe_network(model.parameters(), _process_state())
        _print_once(f"model: {network}, sampler {sampling.sampler}, steps {sampling.steps}")
    else:
        mine = _open_image_source(options.samples, size, name="samples", **ranks)
        _print_source("samples", mine)
    split = {} if options.split is None else {"split": options.split}
    channels = mine.shape[:1] and mine.shape[0]
    real = _open_image_source(options.reference, mine.shape[1:], channels, name="reference", **split, **ranks)
    _print_source("reference", real)
    return mine, real


def _names_model(source: str) -> bool:
    "Whether `source` is a folder of a model, a checkpoint or a run, or an official file; not a folder of images."
    return source.endswith(".pt") or (Path(_model_folder(source)) / "config.json").is_file()


def _load_model(options: Evaluate) -> tuple[DiT, SamplingConfig]:
    "The model whose samples are measured, on the device of this process, and its sampling settings."
    device = _process_state().device
    model, sampling = load_any(options.samples, weights=options.model_weights, device=device)
    if hasattr(model, "encode_text"):
        raise UserError(
            f"samples is {options.samples}, a model of texts: evaluate what dit-nb sample --prompt wrote."
        )
    return model, sampling


def _sample_source(options: Evaluate, model: DiT, sampling: SamplingConfig) -> _ImageSource:
    "Samples of a model, made batch by batch: the classes in turn, with the settings saved with the model."
    decode, n, classes = _load_decoder(sampling, model), options.num_samples, model.config.num_classes
    _check_number("num_samples", n, int)
    labels = torch.arange(n) % classes if classes else None
    sample = partial(sample_images, progress=False)
    make = partial(
        sample_batches, InferenceModel(model), sampling, labels, n, seed=options.seed, sample=sample
    )
    shape = decode(torch.zeros(1, *model.image_shape, device=model.pos_embed.device)).shape[1:]

    def batches(size: int, rank: int = 0, world_size: int = 1) -> Iterator[Tensor]:
        for _, images in make(batch_size=size, rank=rank, world_size=world_size):
            yield _to_uint8(decode(images).cpu()) / 127.5 - 1  # as in a file

    return _ImageSource(options.samples, n, tuple(shape), batches)


def _print_once(text: str) -> None:
    "Print to stderr, in the main process."
    if _process_state().is_main_process:
        print(text, file=sys.stderr, flush=True)


def _print_source(role: str, source: _ImageSource) -> None:
    text = f"data: {source.name}\n  {source.n:,} images of {_shape_text(source.shape)}"
    text = text if source.data is None else _describe_data(source.data, name=source.name)
    _print_once(text.replace("data:", f"{role}:", 1))


def _describe_run(mine: _ImageSource, real: _ImageSource, extractor, settings: _Settings) -> str:
    "The feature network, its parameters, precision and device; and how much there is to do."
    counts = [math.ceil(source.n / settings.batch_size) for source in (mine, real)]
    halves = f", then {settings.resamples} random halves for the intervals" if settings.resamples else ""
    return (
        f"features: {extractor.name}, {_describe_network(extractor._weights(), _process_state())}\n"
        f"run: {counts[0]:,} + {counts[1]:,} batches of up to {settings.batch_size} images{halves}"
    )


@fast_cpu()
def run(options: Evaluate) -> None:
    "Run dit-nb evaluate."
    with _tf32(options.tf32), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings are among the notes
        result = _evaluate(options)
    if _process_state().is_main_process:
        for note in result["notes"]:
            print(f"note: {note}", file=sys.stderr)
        print(json.dumps(result, indent=1) if options.json else _metrics_table(result))


def _evaluate(options: Evaluate) -> dict:
    "What `dit_nb.measure.evaluate` returns, by all processes; of the others than the main process an empty dict."
    shared = _Settings._fields[:-1]  # all but progress
    settings = _Settings(**{name: getattr(options, name) for name in shared})
    settings.check()
    mine, real = _open_both(*_open_sources(options), None)
    _check_counts(mine, real, settings)
    device = _process_state().device
    extractor = _main_process_first(  # which may download its weights
        lambda: _open_extractor(options.features, mine.shape, options.weights, device)
    )
    _print_once(_describe_run(mine, real, extractor, settings))
    return _measure(mine, real, extractor, settings, _ranks())
