"""A model goes from one world to another."""

import argparse

from dit_nb.interop.convert import convert


def options(parser: argparse.ArgumentParser) -> None:
    "Options of dit-nb convert."
    add = parser.add_argument
    add("source", help="an official .pt file, a folder of dit_nb or diffusers, or an id on the Hub")
    add("target", help="where it goes: a .pt file for official, else a folder; must not be there yet")
    add("--to", required=True, choices=("official", "diffusers", "dit_nb"), help="the form to write")
    add("--vae", help="for diffusers: folder or id of the AutoencoderKL to go with a model of latents")
    add("--training", action="store_true", help="for official: write model, ema, opt and args")
    add("--num-heads", type=int, help="of an official checkpoint whose width is none of the paper's")
    add("--num-classes", type=int, help="of an official checkpoint, where there is no null class")
    add("--weights", choices=("ema", "model"), help="of an official checkpoint (default: ema)")
    add("--revision", help="of a model on the Hub")


def run(args: argparse.Namespace) -> None:
    "dit-nb convert"
    names = ("vae", "training", "num_heads", "num_classes", "weights", "revision")
    given = {name: getattr(args, name) for name in names if getattr(args, name)}
    convert(args.source, args.target, args.to, **given)
    print(f"{args.to} model in {args.target}")
    if args.to == "official" and not args.training:
        print(
            "It holds weights alone: class names and the noise process stay behind (--training keeps them)."
        )
