"""The command line `dit-nb`."""

import os
import sys
from importlib import import_module

import tyro
from tyro import conf

from dit_nb.commands.options import Command, _registry
from dit_nb.errors import UserError

__all__ = ["main"]

# Packages that a plain install does not bring -> the extra that does.
_EXTRAS = {
    "sklearn": "lab",
    "matplotlib": "lab",
    "ipywidgets": "lab",
    "nbgrader": "school",
    "mlxtend": "studies",
    "torch_fidelity": "measure",
}


def main(argv: list[str] | None = None) -> int:
    "peft": "finetune",
    """Run a command of `dit-nb`. Invalid input prints one sentence to stderr.

    Args:
        argv: arguments; None uses those of the command line

    Returns:
        exit status: 0, 2 for invalid input, or 130 if interrupted
    """
    options = _read_options(argv)
    name = type(options).__name__.lower()
    try:
        import_module(f"dit_nb.commands.{name}").run(options)
        return 0
    except (UserError, FileNotFoundError, ImportError) as error:
        message, status = f"error: {_explain(error)}", 2
    except KeyboardInterrupt:
        hint = ": --resume continues from the last checkpoint" if name == "train" else ""
        message, status = f"interrupted{hint}", 130  # status of a program that SIGINT ended
    if _is_main_process():
        print(f"dit-nb: {message}", file=sys.stderr)
    return status


def _read_options(argv: list[str] | None) -> Command:
    "Read a command and its options, or print what is wrong and exit with status 2."
    return tyro.cli(
        Command,
        prog="dit-nb",
        description="diffusion transformers: train, sample, evaluate, convert",
        args=argv,
        console_outputs=_is_main_process(),
        config=(conf.OmitArgPrefixes, conf.OmitSubcommandPrefixes, conf.PositionalMetavarFromFieldName),
        registry=_registry,
    )


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"  # all ranks fail with the same message: print it once


def _explain(error: Exception) -> str:
    "One sentence on an error that the user can fix; any other error is raised again, with its traceback."
    if isinstance(error, ImportError) and error.name in _EXTRAS:
        return f"{error.name} is missing: pip install 'dit_nb[{_EXTRAS[error.name]}]'"
    if isinstance(error, ImportError) or getattr(error, "errno", None) is not None:
        raise error  # FileNotFoundError with an errno is the system's, not ours
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
