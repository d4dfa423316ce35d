"""`dit-nb convert`: convert a model between our format, official checkpoints and diffusers."""

from dit_nb.commands.options import Convert
from dit_nb.interop.convert import convert

__all__ = []


def run(options: Convert) -> None:
    "Run dit-nb convert."
    convert(**{name: value for name, value in vars(options).items() if value})
    print(f"{options.to} model in {options.target}")
    if options.to == "official" and not options.training:
        print("it holds the weights only; --training keeps class names and sampling settings too")
