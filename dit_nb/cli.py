"""The command line `dit-nb`."""

import os
import shlex
import sys
from dataclasses import replace
from importlib import import_module
from typing import Union, get_args

import tyro
from tyro import conf

from dit_nb.commands.options import Command, _registry
from dit_nb.errors import _DISK_ERRORS, UserError, _explain_os_error
from dit_nb.signals import Stopped, _ended_by_signals

__all__ = ["main"]

# Packages that a plain install does not bring -> the extra that does.
_EXTRAS = {
    "sklearn": "lab",
    "matplotlib": "lab",
    "ipywidgets": "lab",
    "nbgrader": "school",
    "mlxtend": "studies",
    "torch_fidelity": "measure",
    "peft": "finetune",
    "onnx": "export",
    "onnxscript": "export",
}


# Commands that share their work between processes. Under a launcher, the others run in the main process alone.
_DISTRIBUTED = ("train", "sample", "encode", "evaluate")
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def main(argv: list[str] | None = None) -> int:
    """Run a command of `dit-nb`. Invalid input prints one sentence to stderr.

    Args:
        argv: arguments; None uses those of the command line

    Returns:
        exit status: 0, 2 for invalid input, 130 if interrupted, or 143 (138) if SIGTERM (SIGUSR1) ended a run
    """
    options = _read_options(argv)
    name = type(options).__name__.lower()
    if name not in _DISTRIBUTED and not _run_alone():
        return 0
    if hasattr(options, "command"):
        words = sys.argv[1:] if argv is None else argv
        options = replace(options, command=shlex.join(["dit-nb", *words]))
    status = _run(name, options)
    if "torch.distributed" in sys.modules:
        import_module("dit_nb.distributed")._shutdown(wait=status == 0)
    return status


def _run(name: str, options: Command) -> int:
    "Run a command, print a sentence if the user can fix what is wrong, and return the exit status."
    try:
        with _ended_by_signals():
            return (
                import_module(f"dit_nb.commands.{name}").run(options) or 0
            )  # a command may have its own status
    except (UserError, OSError, ImportError) as error:
        message, status = f"error: {_explain(error)}", 2
    except KeyboardInterrupt:
        hint = ": --resume continues from the last checkpoint" if name == "train" else ""
        message, status = f"interrupted{hint}", 130  # status of a program that SIGINT ended
    except Stopped as stop:  # the run has said so
        return int(stop.code)
    if _is_main_process():
        print(f"dit-nb: {message}", file=sys.stderr)
    return status


def _run_alone() -> bool:
    "Whether this is the main process; if so, hide from it that a launcher has started others."
    if not _is_main_process():
        return False
    for name in _LAUNCHER:
        os.environ.pop(name, None)
    return True


def _read_options(argv: list[str] | None) -> Command:
    "Read a command and its options, or print what is wrong and exit with status 2."
    # Of a typing.Union, tyro needs no typeguard, whose import takes a third of the time of --help.
    return tyro.cli(
        Union[get_args(Command)],  # noqa: UP007
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
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return _explain_os_error(error)
    if isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno is not None):
        raise error  # FileNotFoundError with an errno is the system's, not ours
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
