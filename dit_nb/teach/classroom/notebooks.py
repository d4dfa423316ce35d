"""Notebooks of students: read whatever the file holds, and cells with nbgrader's marks."""

import json
import re
import warnings
from html import unescape
from pathlib import Path

from dit_nb.errors import UserError

__all__ = []

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_TARGET = re.compile(r"(\]\(\s*<?|^ {0,3}\[[^]\n]+\]:\s*<?)([^\s)>]+)", re.MULTILINE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):")
_GAP = r"(?:[\x00-\x20\\]|&(?:amp;)*(?:Tab|NewLine|#0*(?:9|10|13)|#x0*[9ad]);?)*"  # that browsers leave out


def _encoded(character: str) -> str:
    """Return a pattern of a character, as itself or as an HTML entity."""
    codes = {ord(character.lower()), ord(character.upper())}
    entities = "|".join(f"#0*{code}|#x0*{code:x}" for code in sorted(codes))
    return f"(?:{re.escape(character)}|&(?:amp;)*(?:{entities}{'|colon' * (character == ':')});?)"


_RUNS = re.compile(  # schemes of links that run something, wherever they stand; "data: " is a word
    f"({'|'.join(_GAP.join(map(_encoded, scheme)) for scheme in ('javascript', 'vbscript', 'data'))})"
    rf"(?={_GAP}{_encoded(':')}\S)",
    re.IGNORECASE,
)
_BREAK = "\u200b"  # invisible, and no part of a scheme
_SAFE_SCHEMES = ("http", "https", "mailto", "attachment")
_SAFE_DATA = re.compile(r"text/plain|image/(png|jpeg|gif)|application/vnd\.jupyter\.widget-view\+json")


def _read_notebook(path: Path) -> dict:
    """Read a notebook that this package or nbgrader wrote.

    Raises:
        FileNotFoundError: if there is no such file
        UserError: if the file is damaged
    """
    import nbformat

    try:
        nb = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        for cell in nb["cells"]:
            _readable(cell)
        return nb
    except FileNotFoundError:
        raise
    except Exception as error:  # of nbformat, JSON, the encoding, or a key that is missing
        raise UserError(
            f"{path} cannot be read as a notebook ({type(error).__name__}): restore it."
        ) from None


def _read_submission(path: Path) -> dict:
    """Read a student's notebook as nbformat 4.5.

    Raises:
        UserError: if the file is not a notebook; the message says what it is
    """
    import nbformat

    raw = _read_json(path)
    if not isinstance(raw, dict) or "nbformat" not in raw:
        raise UserError("it is not a notebook, but other JSON")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb = nbformat.reads(json.dumps(raw), as_version=4)
            return {**nb, "cells": [_readable(cell) for cell in nb["cells"]], "format": raw["nbformat"]}
    except Exception as error:
        reason = f"its cells cannot be read ({type(error).__name__}, format {raw['nbformat']})"
        raise UserError(reason) from None


def _read_json(path: Path):
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        return json.loads(text)
    except UnicodeDecodeError:
        raise UserError("it is not a text file, so not a notebook") from None
    except json.JSONDecodeError as error:
        cut = text.startswith("{") and (error.pos >= len(text) - 1 or "Unterminated" in error.msg)
        says = "it ends in the middle: was it saved completely?" if cut else "it is not a notebook"
        raise UserError(says if text else "the file is empty") from None
    except RecursionError:
        raise UserError("it is not a notebook, but other JSON") from None


def _part(parent: dict, name: str) -> dict:
    """Return a dictionary inside another; empty if there is none: a student's file may hold anything."""
    found = parent.get(name)
    return found if isinstance(found, dict) else {}


def _readable(cell: dict) -> dict:
    """Return the parts of a student's cell that are used; raise an error if it has none."""
    source, kind = cell["source"], cell["cell_type"]
    if not isinstance(source, str) or kind not in ("code", "markdown", "raw"):
        raise TypeError
    name = _part(cell.get("metadata", {}), "nbgrader").get("grade_id")
    shown = {name: cell[name] for name in ("attachments", "outputs", "execution_count") if cell.get(name)}
    return {"kind": kind, "source": source, "id": name if isinstance(name, str) else None, "shown": shown}


def _marks(cell: dict) -> dict:
    """Return nbgrader's marks of a cell."""
    return cell["metadata"].get("nbgrader", {})


def _grade_id(cell: dict) -> str | None:
    return _marks(cell).get("grade_id")


def _exercise(cell: dict) -> str:
    """Return the exercise that a marked cell belongs to; empty if it has no mark."""
    return (_grade_id(cell) or "").rpartition("-")[0]


def _is_solution(cell: dict) -> bool:
    return bool(_marks(cell).get("solution"))


def _is_check(cell: dict) -> bool:
    """Whether a cell is graded by running it."""
    return bool(_marks(cell).get("grade")) and not _is_solution(cell)


def _is_report(cell: dict) -> bool:
    """Whether a cell is graded by hand."""
    return bool(_marks(cell).get("grade")) and _is_solution(cell)


def _graded_by_hand(nb: dict) -> bool:
    """Whether a person grades all of it, so that nothing needs to run."""
    return not any(_is_check(cell) for cell in nb["cells"])


def _sanitized(cell: dict) -> dict:
    """Return a student's cell without HTML and scripts: its page opens with the teacher's rights."""
    if cell["cell_type"] != "code":
        there = cell.get("attachments", {})  # a picture that is not there would end nbconvert
        known = re.sub(
            r"attachment:([^)\s\"'>]*)", lambda m: m[0] if m[1] in there else "#lost", cell["source"]
        )
        return {**cell, "source": _sanitized_markdown(known)}
    return {**cell, "outputs": [_sanitized_output(output) for output in cell.get("outputs", [])]}


def _sanitized_markdown(text: str) -> str:
    """Show HTML as text, take the target from links that run something, and break the scheme of any other."""
    plain = _TARGET.sub(lambda m: m[0] if _harmless(m[2]) else f"{m[1]}#", _TAG.sub("&lt;", text))
    return _RUNS.sub(lambda m: m[0] + _BREAK, plain)


def _harmless(target: str) -> bool:
    plain = re.sub(r"[\x00-\x20\\]", "", unescape(target)).lower()
    scheme = _SCHEME.match(plain)
    return scheme is None or scheme[1] in _SAFE_SCHEMES


def _sanitized_output(output: dict) -> dict:
    """Return an output without HTML, SVG and scripts, whether it was stored or comes from a kernel."""
    data = output.get("data")
    if not isinstance(data, dict):
        return output
    safe = {m: value for m, value in data.items() if _SAFE_DATA.fullmatch(m) and _is_shown(m, value)}
    if _is_shown("text/markdown", text := data.get("text/markdown")):
        safe["text/markdown"] = _sanitized_markdown("".join(text))
    metadata = {mime: _sizes(value) for mime, value in _part(output, "metadata").items() if mime in safe}
    return {**output, "data": safe or {"text/plain": ""}, "metadata": metadata}


def _is_shown(mime: str, value) -> bool:
    """Whether a page can show a value of this type: text and pictures are strings, or lists of them."""
    lines = value if isinstance(value, list) else [value]
    return mime.endswith("json") or all(isinstance(line, str) for line in lines)


def _sizes(value) -> dict:
    """Return width and height of a picture: pages write them into its tag, without quotes."""
    found = value if isinstance(value, dict) else {}
    return {name: n for name in ("width", "height") if isinstance(n := found.get(name), int | float)}
