"""Importing dit_nb is light, silent and offline, and no room of the house imports from a floor above its own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dit_nb

HOUSE = Path(dit_nb.__file__).parent

FLOORS = {
    0: "basics patchify positions conditioning attention schedule",
    1: "blocks.in_context blocks.cross_attention blocks.adaln blocks.adaln_zero objective",
    2: "model cost sampling guidance",
    3: "images data latents speed",
    4: "training runs evaluation measure budget paper studies pretrained experiments official diffusers_bridge exchange anatomy",
    5: "visual bench explore.core explore.tokens explore.blocks explore.diffusion explore.runs explore.budget "
    "explore.scaling explore.latents explore.theatre explore.anatomy "
    "checks.core checks.patchify checks.positions checks.conditioning checks.attention checks.in_context "
    "checks.cross_attention checks.adaln checks.adaln_zero checks.schedule checks.objective checks.sampling "
    "checks.guidance checks.report checks.limits checks.exercise checks.outcome checks.images checks.layer_norm "
    "checks.posterior checks.likelihood checks.variants_tokens checks.variants_attention checks.variants_modulation "
    "checks.variants_process checks.variants_loss checks.variants_steps",
    6: "assignments sources handins classroom commands.options commands.digits commands.train commands.sample commands.encode "
    "commands.evaluate commands.assignment commands.convert commands.bench commands.study cli",
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
ROOMS = sorted(
    ".".join(path.relative_to(HOUSE).with_suffix("").parts)
    for path in HOUSE.rglob("*.py")
    if path.name not in ("__init__.py", "_modidx.py")
)
HEAVY = {"diffusers", "accelerate", "matplotlib", "ipywidgets"}
BUILD_TOOLS = {"nbdev", "fastcore", "execnb", "ghapi"}


def absolute(node, package):
    """The full names of the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) + 1 - node.level] if node.level else []
    start = [*base, *(node.module or "").split(".")] if node.module else base
    # In `from package import name` the name may be a module.
    return [".".join(start), *(".".join([*start, alias.name]) for alias in node.names)]


def imports_of(source, package):
    """The modules that Python source imports anywhere, inside functions too."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name for node in nodes for name in absolute(node, package)}


def imports(room):
    path = HOUSE.joinpath(*room.split(".")).with_suffix(".py")
    return imports_of(path.read_text(encoding="utf-8"), ["dit_nb", *room.split(".")[:-1]])


def rooms_of(names):
    """The rooms of the house among imported modules."""
    return {name.removeprefix("dit_nb.") for name in names} & set(ROOMS)


def all_below(room):
    """All rooms that a room reaches, by any number of doors."""
    reached, doors = set(), [room]
    while doors:
        new = rooms_of(imports(doors.pop())) - reached
        reached |= new
        doors += new
    return reached


def outside(names):
    return {name.split(".")[0] for name in names} - {"dit_nb"}


def test_every_room_stands_on_a_floor():
    assert [room for room in ROOMS if room not in FLOOR] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_higher_room(room):
    below = rooms_of(imports(room))
    assert {other for other in below if FLOOR.get(other, 99) > FLOOR.get(room, 99)} == set()
    assert room not in all_below(room), "a circle of imports"


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_the_build_tools(room):
    assert outside(imports(room)) & BUILD_TOOLS == set()


@pytest.mark.parametrize("room", [room for room in ROOMS if FLOOR.get(room, 99) <= 2])
def test_maths_rooms_stay_light(room):
    names = outside(imports(room)).union(*(outside(imports(other)) for other in all_below(room)))
    assert names & HEAVY == set()


def test_the_model_knows_nothing_of_diffusion_nor_diffusion_of_the_model():
    diffusion = {"schedule", "objective", "sampling", "guidance"}
    assert all_below("model") & diffusion == set()
    for room in diffusion:
        below = all_below(room)
        assert below <= diffusion | {"basics"}, below


def test_the_reader_of_imports_sees_all_kinds():
    source = """
import torch, matplotlib.pyplot as plt
from .model import DiT
from . import schedule
def later():
    from ..blocks.adaln import modulate
    from dit_nb import sampling
"""
    found = imports_of(source, ["dit_nb", "inner"])
    assert {"torch", "matplotlib.pyplot", "dit_nb.inner.model", "dit_nb.inner.schedule"} <= found
    assert {"dit_nb.blocks.adaln", "dit_nb.sampling"} <= found
    assert imports_of("from .attention import Mlp", ["dit_nb"]) >= {"dit_nb.attention"}


GUARD = """
import socket, sys

class NoSocket(socket.socket):
    def __init__(self, *args, **options):
        raise RuntimeError("a socket was opened")

socket.socket = NoSocket

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError("the network was asked: " + event)

sys.addaudithook(no_network)
"""

REPORT = """
import torch
heavy = {"diffusers", "accelerate", "matplotlib", "ipywidgets", "nbdev", "fastcore", "execnb", "datasets", "sklearn"}
print("heavy:", *sorted(heavy & sys.modules.keys()))
print("cuda:", torch.cuda.is_initialized())
"""


def fresh(code):
    """Run code in a new interpreter that may not open a socket; return what it wrote."""
    python = [sys.executable, "-c", GUARD + code]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE.parent)}
    done = subprocess.run(python, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr


def test_import_is_light_silent_and_offline():
    assert fresh("import dit_nb" + REPORT) == (0, "heavy:\ncuda: False\n", "")


def test_rooms_of_the_maths_are_light_and_offline():
    rooms = [room for room in ROOMS if FLOOR.get(room, 99) <= 2]
    code = "".join(f"import dit_nb.{room}\n" for room in rooms)
    assert fresh(code + REPORT)[:2] == (0, "heavy:\ncuda: False\n")


def test_the_public_names_are_there():
    assert set(dit_nb.__all__) == {"DiT", "DiTConfig", "Diffusion"}
    assert all(hasattr(dit_nb, name) for name in dit_nb.__all__)
    assert dit_nb.__version__


@pytest.mark.parametrize("code", ["socket.socket()", "socket.create_connection(('127.0.0.1', 9))"])
def test_the_guard_guards(code):
    returncode, _, error = fresh(code)
    assert returncode != 0 and "RuntimeError" in error
