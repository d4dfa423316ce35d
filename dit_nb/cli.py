"""Everything of the lessons, without writing code."""

import argparse
import os
import sys
from importlib import import_module

COMMANDS = {
    "digits": "train on real handwritten digits, draw new ones, and judge them",
    "train": "train a DiT on your images, or on latents",
    "sample": "draw images with a trained model",
    "encode": "turn images into the latents of an autoencoder, once and for all",
    "evaluate": "compare samples with real images: Fréchet distances, inception score, precision, recall",
    "convert": "bring a model from or to the official format or diffusers",
    "assignment": "graded assignments for a class, from the lessons",
    "bench": "measure how fast things are on this machine",
    "study": "small experiments with the paper's questions, resumable",
}


def main(
    argv: list[str] | None = None,  # words of the command line; sys.argv by default
) -> int:  # exit status
    "The command dit-nb. Bad input ends it with one sentence and status 2."
    argv = sys.argv[1:] if argv is None else argv
    text = "Diffusion transformers: learn, train, sample, look."
    parser = argparse.ArgumentParser(prog="dit-nb", description=text)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
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
        said, status = f"error: {error}", 2
    except KeyboardInterrupt:
        how = ": train again with --resume to go on from the last checkpoint" if argv[0] == "train" else ""
        said, status = f"stopped{how}", 130  # as a shell has it
    if os.environ.get("RANK", "0") == "0":  # of many processes that end alike, one says so
        print(f"dit-nb: {said}", file=sys.stderr)
    return status


if __name__ == "__main__" and "__file__" in globals():
    sys.exit(main())
