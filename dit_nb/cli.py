"""The command line `dit-nb`."""

import argparse
import os
import sys
from importlib import import_module

__all__ = ["main"]

_COMMANDS = {
    "digits": "train on handwritten digits, sample new ones, and evaluate them",
    "train": "train a DiT on images or latents",
    "sample": "sample images from a trained model",
    "encode": "encode images into latents of an autoencoder",
    "evaluate": "compare samples with real images: Fréchet distances, inception score, precision, recall",
    "convert": "convert a model from or to the official format or diffusers",
    "assignment": "build and grade assignments for a class, from the lessons",
    "bench": "measure the speed of training and sampling on this machine",
    "study": "run small experiments on the paper's questions",
}

# Packages that a plain install does not bring -> the extra that does.
_EXTRAS = {
    "sklearn": "lab",
    "matplotlib": "lab",
    "ipywidgets": "lab",
    "nbgrader": "school",
    "mlxtend": "studies",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command of `dit-nb`. Invalid input prints one sentence to stderr.

    Args:
        argv: arguments; None uses those of the command line

    Returns:
        exit status: 0, 2 for invalid input, or 130 if interrupted
    """
    argv = sys.argv[1:] if argv is None else argv
    text = "Diffusion transformers: train, sample, evaluate, convert."
    parser = argparse.ArgumentParser(prog="dit-nb", description=text)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        options = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in argv[:1]:
            module = import_module(f"dit_nb.commands.{name}")
            module.options(options)
            options.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        args.run(args)
        return 0
    except ValueError as error:
        message, status = f"error: {error}", 2
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        extra = _EXTRAS[error.name]
        message, status = f"error: {error.name} is missing: pip install 'dit_nb[{extra}]'", 2
    except KeyboardInterrupt:
        hint = ": --resume continues from the last checkpoint" if argv[0] == "train" else ""
        message, status = f"interrupted{hint}", 130  # status of a program that SIGINT ended
    if os.environ.get("RANK", "0") == "0":  # all ranks fail with the same message: print it once
        print(f"dit-nb: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
