"""Invented students for the tests of the classroom."""

import copy
import json
import re

import nbformat

from dit_nb.teach.classroom.nbgrader_source import source_notebook

RIGHT = {
    "patchify": "from einops import rearrange\n\n\ndef patchify(images, patch_size):\n"
    '    return rearrange(images, "n c (h p) (w q) -> n (h w) (p q c)", p=patch_size, q=patch_size)',
    "conv_to_linear": "def conv_to_linear(weight):\n    return weight.permute(0, 2, 3, 1).flatten(1)",
}
ZERO = "import torch\n\n\ndef patchify(images, patch_size):\n    return torch.zeros(1)"

# The grading worksheet that Moodle writes.
ENGLISH_WORKSHEET = """Identifier,"Full name","Email address",Status,Grade,"Maximum grade","Grade can be changed",\
"Last modified (submission)","Last modified (grade)","Feedback comments"
"Participant 123","Ann Müller",ann@x.org,"Submitted for grading - ",,13.00,Yes,"Monday, 2 March 2026, 3:00 PM",-,
"Participant 124","Ben Li",ben@x.org,"No submission - ",7.00,13.00,Yes,-,"Monday, 2 March 2026, 4:00 PM",Good
"""
GERMAN_WORKSHEET = """ID,"Vollständiger Name",E-Mail-Adresse,Status,Bewertung,Bestwertung,"Bewertung kann geändert werden",\
"Zuletzt geändert (Abgabe)","Zuletzt geändert (Bewertung)","Feedback als Kommentar"
Teilnehmer/in123,"Ann Müller",ann@x.org,"Zur Bewertung abgegeben",,"13,00",Ja,-,-,
Teilnehmer/in124,"Ben Li",ben@x.org,"Keine Abgabe","7,00","13,00",Ja,-,"Dienstag, 2. Dezember 2025, 10:37",
"""


def marks(cell):
    return cell["metadata"].get("nbgrader", {})


def code(source, name=None):
    """A code cell; with the mark of a solution cell if it has a name."""
    cell = nbformat.v4.new_code_cell(source)
    if name:
        cell["metadata"]["nbgrader"] = {"grade_id": name, "solution": True}
    return cell


def markdown(source):
    return nbformat.v4.new_markdown_cell(source)


def solutions(name):
    """What solves each exercise, from the source."""
    cells = source_notebook(name)["cells"]
    found = {marks(c)["grade_id"].rsplit("-", 1)[0]: c["source"] for c in cells if marks(c).get("solution")}
    return {key: re.sub(r".*(BEGIN|END) SOLUTION.*\n?", "", source).rstrip() for key, source in found.items()}


def place(nb, grade_id):
    """Index of a cell."""
    return next(i for i, c in enumerate(nb["cells"]) if marks(c).get("grade_id") == grade_id)


def submitted(release, answers, after=None):
    """A student's notebook: the release, with answers, and own cells after some of its cells."""
    nb = copy.deepcopy(release)
    for cell in nb["cells"]:
        exercise, _, role = marks(cell).get("grade_id", "").rpartition("-")
        if role in ("solution", "report") and exercise in answers:
            cell["source"] = answers[exercise]
    for grade_id, cells in (after or {}).items():
        i = place(nb, grade_id) + 1
        nb["cells"][i:i] = cells
    return nb


def put(path, nb):
    """Write a notebook, or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nb if isinstance(nb, str) else json.dumps(nb), encoding="utf-8")
    return path
