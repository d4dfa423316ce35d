"""`dit-nb evaluate`: compare samples with real images, as a table or as JSON."""

import json
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dit_nb.commands.data import _describe_data, _parse_size
from dit_nb.commands.options import Evaluate
from dit_nb.commands.sample import _load_decoder
from dit_nb.data import _to_uint8
from dit_nb.errors import UserError, _check_number
from dit_nb.features import _shape_text
from dit_nb.hub import _model_folder
from dit_nb.interop.convert import load_any
from dit_nb.measure import evaluate
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
    "Open samples and reference, and print what was found to stderr. The reference is cropped to the samples' size."
    made = _names_model(options.samples)
    size = _parse_size(options.image_size)
    mine = _sample_model(options) if made else _open_image_source(options.samples, size)
    _print_source("samples", mine)
    split = {} if options.split is None else {"split": options.split}
    real = _open_image_source(options.reference, mine.shape[1:], mine.shape[:1] and mine.shape[0], **split)
    _print_source("reference", real)
    return mine, real


def _names_model(source: str) -> bool:
    "Whether `source` is a folder of a model, a checkpoint or a run, or an official file; not a folder of images."
    return source.endswith(".pt") or (Path(_model_folder(source)) / "config.json").is_file()


def _sample_model(options: Evaluate) -> _ImageSource:
    "Samples of a model, made batch by batch: the classes in turn, with the settings saved with the model."
    model, sampling = load_any(options.samples, weights=options.model_weights)
    if hasattr(model, "encode_text"):
        raise UserError(
            f"samples is {options.samples}, a model of texts: evaluate what dit-nb sample --prompt wrote."
        )
    decode, n, classes = _load_decoder(sampling, model), options.num_samples, model.config.num_classes
    _check_number("num_samples", n, int)
    labels = torch.arange(n) % classes if classes else None
    sample = partial(sample_images, progress=False)
    make = partial(
        sample_batches, InferenceModel(model), sampling, labels, n, seed=options.seed, sample=sample
    )
    shape = decode(torch.zeros(1, *model.image_shape, device=model.pos_embed.device)).shape[1:]

    def batches(size: int) -> Iterator[Tensor]:
        for _, images in make(batch_size=size):
            yield _to_uint8(decode(images).cpu()) / 127.5 - 1  # as in a file

    return _ImageSource(options.samples, n, tuple(shape), batches)


def _print_source(role: str, source: _ImageSource) -> None:
    text = f"data: {source.name}\n  {source.n:,} images of {_shape_text(source.shape)}"
    text = text if source.data is None else _describe_data(source.data, name=source.name)
    print(text.replace("data:", f"{role}:", 1), file=sys.stderr)


@fast_cpu()
def run(options: Evaluate) -> None:
    "Run dit-nb evaluate."
    settings = {**vars(options)}
    for name in (
        "samples",
        "reference",
        "image_size",
        "split",
        "json",
        "num_samples",
        "model_weights",
        "tf32",
    ):
        del settings[name]
    with _tf32(options.tf32), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings are among the notes
        result = evaluate(*_open_sources(options), **settings)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result, indent=1) if options.json else _metrics_table(result))
