"""Tests mirror the package: a module that users call, and each command, has a test file of its name."""

from pathlib import Path

import pytest

from support import public_names

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS = ROOT / "dit_nb", ROOT / "tests"
PARTS = {  # module or folder of the package: folders where its tests may be; others have the name of the folder
    "cli": ("commands",),
    ".": ("core", "training", "data", "evaluation", "interop"),
    "blocks": ("core",),
    "teach/graders/framework": ("teach/graders",),
}
BY_COMMANDS = "teach/classroom"  # its modules work together: their tests are named after what a teacher does


def needs_test(path: Path) -> bool:
    """Whether a module must have a test file of its own; helpers without public names may share one."""
    folder = path.parent.relative_to(PACKAGE).as_posix()
    if path.name.startswith("_") or folder == BY_COMMANDS:
        return False
    return folder == "commands" or bool(public_names(path))


def places(path: Path) -> list[Path]:
    """Where the tests of a module may be."""
    folder = path.parent.relative_to(PACKAGE).as_posix()
    module = path.relative_to(PACKAGE).with_suffix("").as_posix()
    parts = PARTS.get(module, PARTS.get(folder, (folder,)))
    return [TESTS / part / f"test_{path.stem}.py" for part in parts]


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if needs_test(path)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_with_public_names_has_a_test_file(path):
    files = [file for file in places(path) if file.is_file()]
    assert len(files) == 1, f"make one of {', '.join(str(file.relative_to(ROOT)) for file in places(path))}"
    assert "def test_" in files[0].read_text(encoding="utf-8")


def test_the_rule_sees_what_it_must():
    names = {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert {"training.py", "commands/check.py", "blocks/adaln.py", "lab/few_steps.py"} <= names
    assert "image_range.py" not in names, "no public names"
    assert {"save_model", "text_emoji_model"} <= set(public_names(PACKAGE / "pretrained.py")), "added later"
    assert (TESTS / BY_COMMANDS).is_dir()
