"""`dit-nb convert`: convert a model between our format, official checkpoints and diffusers."""

import argparse

from dit_nb.interop.convert import convert

__all__ = []


def options(parser: argparse.ArgumentParser) -> None:
    "Add the options of dit-nb convert."
    add = parser.add_argument
    add("source", help="official .pt file, folder of dit_nb or diffusers, or Hub id")
    add("target", help="output: a .pt file for official, else a folder; must not exist yet")
    add("--to", required=True, choices=("official", "diffusers", "dit_nb"), help="format to write")
    add("--vae", help="folder or Hub id of an AutoencoderKL to add to a diffusers pipeline (default: none)")
    add("--training", action="store_true", help="write an official checkpoint with model, ema, opt and args")
    heads = "number of heads, if the width of an official checkpoint is not one of S, B, L and XL"
    add("--num-heads", type=int, metavar="HEADS", help=heads)
    classes = "number of classes of an official checkpoint without a null class"
    add("--num-classes", type=int, metavar="CLASSES", help=classes)
    add("--weights", choices=("ema", "model"), help="weights of an official checkpoint (default: ema)")
    add("--revision", help="branch, tag or commit of a Hub id (default: main)")


def run(args: argparse.Namespace) -> None:
    "Run dit-nb convert."
    names = ("vae", "training", "num_heads", "num_classes", "weights", "revision")
    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    convert(args.source, args.target, args.to, **given)
    print(f"{args.to} model in {args.target}")
    if args.to == "official" and not args.training:
        print("it holds the weights only; --training keeps class names and sampling settings too")
