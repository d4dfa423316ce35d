"""Lesson 24: at most 250 lines without its exercise, a program that imports torch alone, and that runs by itself."""

import ast
import json
import sys
from pathlib import Path

import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.guidance import Guided
from dit_nb.sampling import ddpm_sample
from support import randomize, relative

NOTEBOOK = Path(__file__).resolve().parents[2] / "nbs" / "4_practice" / "24_minidit.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
CODE = [source for source in CODE if "google.colab" not in source]  # installs the package on Colab
PROGRAM = [cell for cell in CODE if cell.startswith("#| program")]
TITLES = ["".join(cell["source"]).split("\n")[0] for cell in CELLS]
START, END = TITLES.index("## Write it yourself"), TITLES.index("## Try it")
EXERCISE = ["".join(cell["source"]) for cell in CELLS[START:END] if cell["cell_type"] == "code"]


def lines(cells):
    """Lines of code: neither empty nor a directive."""
    found = [line for cell in cells for line in cell.splitlines()]
    return [line for line in found if line.strip() and not line.startswith("#|")]


def imported(cells):
    """Names of the packages that cells import, without the standard library."""
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names


def test_the_whole_notebook_has_at_most_250_lines_of_code_without_its_exercise():
    assert 100 < len(lines(PROGRAM)) < len(lines(CODE)) - len(lines(EXERCISE)) <= 250
    assert f"in {len(lines(PROGRAM))} lines of code" in "".join(CELLS[0]["source"])


def test_the_program_imports_torch_alone_and_its_data_from_one_cell():
    data = [cell for cell in PROGRAM if "sklearn" in cell]
    assert len(data) == 1 and imported(data) == {"sklearn"} and len(lines(data)) <= 4
    assert imported([cell for cell in PROGRAM if cell not in data]) == {"torch"}


def test_cells_before_the_check_use_the_package_for_pictures_only():
    end = next(i for i, cell in enumerate(CODE) if "import dit_nb" in cell)
    before = [cell for cell in CODE[:end] if cell not in PROGRAM]
    assert set(PROGRAM) <= set(CODE[:end])
    used = [line for line in lines(before) if "dit_nb" in line]
    assert all("dit_nb.visual" in line or "dit_nb.teach.overview" in line for line in used)


@pytest.fixture(scope="module")
def program():
    """What the program defines, after a training of two steps."""
    source = "\n\n".join(PROGRAM)
    assert source.count("steps=500") == 1 and source.count("torch.randn(51, 60") == 1
    names = {}
    with torch.random.fork_rng():
        exec(source.replace("steps=500", "steps=2").replace("torch.randn(51, 60", "torch.randn(3, 60"), names)
    return names


def test_the_program_runs_by_itself(program, capsys):
    assert len(program["history"]) == 2 and program["digits"].shape == (60, 1, 8, 8)
    text = program["as_text"](torch.tensor([[[-1.0, 1.0], [0.0, 5.0]]]))
    assert text.splitlines() == ["  @@", "==@@"] or len(text.splitlines()) == 2


def test_it_starts_with_the_same_zeros_as_the_package(program):
    package = dict(DiT(DiTConfig(8, 4, 1, 128, 2, 4, num_classes=10)).named_parameters())
    zero = {name for name, weight in program["DiT"]().named_parameters() if not weight.any()}
    assert zero == {name for name, weight in package.items() if not weight.any()}
    assert "x_embedder.proj.bias" in zero


@pytest.mark.parametrize("p,depth", [(4, 2), (2, 3)])
@torch.no_grad()
def test_it_is_the_dit_of_the_package(program, p, depth):
    package = randomize(DiT(DiTConfig(8, p, 1, 32, depth, 4, num_classes=10))).eval().double()
    mini = program["DiT"](p=p, D=32, depth=depth, heads=4).double()
    mini.load_state_dict(package.state_dict())
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(17, (40, 1, 8, 8), generator=generator).double() / 8 - 1
    noise = torch.randn(8, 40, 1, 8, 8, generator=generator).double()
    t = torch.tensor([0, 0, 1, 2, 999]).repeat(8)
    y = torch.arange(40) % 11
    assert relative(mini(noise[0], t, y), package(noise[0], t, y)) < 1e-12
    want = Diffusion(bins=17).training_losses(package, x0, t, y, noise=noise[0])
    mse, vb = program["losses"](mini, x0, t, y, noise[0])
    assert relative(mse, want["mse"]) < 1e-12 and relative(vb, want["vb"]) < 1e-8
    for scale in (1.0, 3.0):
        ours = program["sample"](mini, y, noise, scale)
        guided = package if scale == 1 else Guided(package, scale)
        theirs = ddpm_sample(
            Diffusion(bins=17).respaced("7"),
            guided,
            (40, 1, 8, 8),
            y,
            x_T=noise[0],
            step_noise=noise[1:],
            clip_x0=True,
            progress=False,
        )
        assert relative(ours, theirs) < 1e-9


def test_gradients_of_both_losses_are_those_of_the_package(program):
    package = randomize(DiT(DiTConfig(8, 4, 1, 32, 1, 4, num_classes=10))).eval().double()
    mini = program["DiT"](D=32, depth=1).double()
    mini.load_state_dict(package.state_dict())
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randint(17, (6, 1, 8, 8), generator=generator).double() / 8 - 1
    noise, t, y = (
        torch.randn(x0.shape, generator=generator).double(),
        torch.tensor([0, 1, 50, 400, 800, 999]),
        torch.arange(6),
    )
    sum(program["losses"](mini, x0, t, y, noise)).mean().backward()
    Diffusion(bins=17).training_losses(package, x0, t, y, noise=noise)["loss"].mean().backward()
    theirs = dict(package.named_parameters())
    for name, weight in mini.named_parameters():
        if weight.requires_grad:
            assert relative(weight.grad, theirs[name].grad) < 1e-8, name
