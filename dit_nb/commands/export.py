"""`dit-nb export`: write a model as ONNX, or for the JavaScript of the page `site/live`."""

from dit_nb.commands.options import Export
from dit_nb.interop.convert import load_any
from dit_nb.interop.export import export_model

__all__ = []


def run(options: Export) -> None:
    "Run dit-nb export."
    model, sampling = load_any(options.model)
    export_model(model, sampling, options.target, options.format)
    print(f"{options.format} model in {options.target}")
