"""Importing dit_nb is light and works offline. (Layers between modules: import-linter, in pyproject.toml.)"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dit_nb

PACKAGE = Path(dit_nb.__file__).parent
CORE = (
    "errors utils patchify positions conditioning attention blocks.base blocks.in_context blocks.cross_attention blocks.adaln "
    "blocks.adaln_zero config model schedule objective sampling guidance oracle"
).split()

GUARD = """
import socket, sys

class NoSocket(socket.socket):
    def __init__(self, *args, **options):
        raise RuntimeError("a socket was opened")

socket.socket = NoSocket

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError("the network was used: " + event)

sys.addaudithook(no_network)
"""

REPORT = """
import torch
print("cuda:", torch.cuda.is_initialized())
"""


def fresh(code):
    """Run code in a new interpreter that may not open a socket; return status, output and errors."""
    python = [sys.executable, "-c", GUARD + code]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(python, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr


def packages_after(code):
    """Top-level packages outside the standard library that are loaded after the code has run."""
    listing = "print(*sorted({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    status, output, error = fresh(f"{code}\n{listing}")
    assert status == 0, error
    return set(output.split())


def test_import_is_silent_and_offline():
    assert fresh("import dit_nb" + REPORT) == (0, "cuda: False\n", "")


def test_the_core_loads_nothing_but_torch_numpy_and_einops():
    """Torch loads packages of its own (sympy, networkx ...): whatever `import torch, einops` loads is fine."""
    own = packages_after("import torch, numpy, einops")
    core = packages_after("import dit_nb\n" + "\n".join(f"import dit_nb.{name}" for name in CORE))
    assert core - own == {"dit_nb"}


def test_torch_is_loaded_with_the_first_name_that_is_used():
    assert "torch" not in packages_after("import dit_nb, dit_nb.config, dit_nb.errors")
    assert "torch" not in packages_after("from dit_nb import DiTConfig, SamplingConfig, TrainConfig")
    assert "torch" in packages_after("from dit_nb import DiT")


def test_public_names():
    assert {
        *("DiT", "DiTConfig", "Diffusion", "Guided", "SamplingConfig", "TrainConfig"),
        *("load_model", "sample_images"),
    } == set(dit_nb.__all__)
    assert all(callable(getattr(dit_nb, name)) for name in dit_nb.__all__)
    assert dit_nb.__version__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dit_nb.no_such_name


@pytest.mark.parametrize("code", ["socket.socket()", "socket.create_connection(('127.0.0.1', 9))"])
def test_the_guard_catches_network_use(code):
    returncode, _, error = fresh(code)
    assert returncode != 0 and "RuntimeError" in error
