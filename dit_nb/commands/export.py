"""`dit-nb export`: write a model as ONNX, or for the JavaScript of the page `site/live`."""

from dit_nb.commands.options import Export
from dit_nb.interop.convert import load_any
from dit_nb.interop.export import _check_request, export_model

__all__ = []


def run(options: Export) -> None:
    "Run dit-nb export."
    _check_request(options.target, options.format)  # before a large model is loaded
    model, sampling = load_any(options.model, weights=options.weights, device="cpu")
    export_model(model, sampling, options.target, options.format)
    print(f"{options.format} model in {options.target}")
