"""No function to check: the cells that ran in the notebook say why."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

CHECK = "from dit_nb.teach.graders.patchify import check_patchify\nreport = check_patchify(patchify)"
NONE = "# the functions that you will write\npatchify = None"
RIGHT = """def patchify(images, patch_size):
    n, c, h, w = images.shape
    p = patch_size
    x = images.reshape(n, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, p * p * c)"""


@pytest.fixture
def run_cells():
    """Run cells one after the other, as a notebook does; return the reason of the last check."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **options: None

    def run(*cells):
        for cell in cells:
            shell.run_cell(cell, store_history=True)
        return shell.user_ns["report"].reason

    yield run
    shell.reset()
    InteractiveShell.clear_instance()


def test_a_syntax_error_is_told_with_its_line(run_cells):
    broken = RIGHT.replace("    p = patch_size", "    p = (patch_size")
    assert run_cells(NONE, broken, CHECK) == (
        "The cell that defines patchify has a SyntaxError in line 3: p = (patch_size ('(' was never closed)."
    )
    assert run_cells(RIGHT, CHECK).startswith("Right"), "a fixed cell"


def test_a_missing_colon_and_a_wrong_indent(run_cells):
    reason = run_cells(NONE, RIGHT.replace("patch_size):", "patch_size)"), CHECK)
    assert "SyntaxError in line 1: def patchify(images, patch_size) (expected ':')" in reason
    reason = run_cells(NONE, RIGHT.replace("    return", "      return"), CHECK)
    assert "IndentationError in line 5" in reason


def test_a_missing_import_is_told_with_its_line(run_cells):
    reason = run_cells(NONE, f"import math\nimport no_such_package\n\n{RIGHT}", CHECK)
    assert reason == (
        "The cell that defines patchify did not run to its end. It stopped with ModuleNotFoundError in line 2: "
        "No module named 'no_such_package'."
    )


def test_a_function_below_its_check_is_told_to_be_above(run_cells):
    reason = run_cells(NONE, "x = 1", CHECK, RIGHT)
    assert reason == (
        "No cell that ran before this check defines patchify: write the function above its check, and run it."
    )
    assert run_cells(CHECK).startswith("Right")


def test_magics_are_no_syntax_errors(run_cells):
    assert run_cells(NONE, f"%xmode Plain\n{RIGHT}", CHECK).startswith("Right")


def test_a_name_that_is_no_function_is_told_so(run_cells):
    assert "was given 3" in run_cells(f"{RIGHT}\npatchify = 3", CHECK)
