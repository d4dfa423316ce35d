"""Why there is no function to check: what the cells that ran so far say."""

import ast
import sys
import traceback

__all__ = []


def _cells_run() -> list[str]:
    """Return the text of all cells that ran in this notebook, the oldest first; empty outside of IPython."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return []
    return [shell.transform_cell(cell) for cell in shell.history_manager.input_hist_raw if cell.strip()]


def _defines(cell: str, name: str) -> bool:
    """Whether a cell, which may be no valid Python, defines a name."""
    lines = [line.split("#")[0].strip() for line in cell.splitlines()]
    return any(line.startswith((f"def {name}(", f"def {name} ", f"{name} =")) for line in lines)


def _syntax_error(cell: str) -> SyntaxError | None:
    try:
        ast.parse(cell)
    except SyntaxError as error:
        return error
    return None


def _last_error(cell: str) -> str:
    """Describe the error with which a cell ended; empty if it is not known."""
    shell = sys.modules["IPython"].get_ipython()
    last = getattr(shell, "last_execution_result", None)
    error = last and (last.error_before_exec or last.error_in_exec)
    if not error or not last.info or shell.transform_cell(last.info.raw_cell or "") != cell:
        return ""
    own = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "ipykernel" in f.filename or "<ipython" in f.filename
    ]
    line = f" in line {own[0].lineno}" if own else ""
    return f" It stopped with {type(error).__name__}{line}: {' '.join(str(error).split())[:160]}"


def _why_no_function(name: str) -> str:
    """Return why no function of this name is known; empty if the cells that ran do not tell.

    The check itself is the last cell that ran.
    """
    cells = _cells_run()[:-1]
    if not cells:
        return ""
    found = [cell for cell in cells if _defines(cell, name) and f"{name} = None" not in cell]
    if not found:
        return f"no cell that ran before this check defines {name}: write the function above its check, and run it"
    error = _syntax_error(found[-1])
    if error:
        text = (error.text or "").strip()
        where = f"line {error.lineno}" + (f": {text[:80]}" if text else "")
        return f"the cell that defines {name} has a {type(error).__name__} in {where} ({error.msg})"
    reason = _last_error(found[-1])
    return f"the cell that defines {name} did not run to its end.{reason}" if reason else ""
