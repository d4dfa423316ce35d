"""The emoji data set: counts, ranges, classes, split and checksums; what is refused."""

import csv
import json
import subprocess
import sys
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import build_emoji
from dit_nb import emoji as module
from dit_nb.data import emoji, running_emoji
from dit_nb.emoji import CATEGORIES
from support import error_cases, raises_input_error


@pytest.fixture(scope="module")
def split():
    return emoji()


def test_counts_shapes_and_range(split):
    assert (len(split.train), len(split.held_out)) == (2723, 512)
    for part in split:
        assert part.images.shape == (len(part), 3, 32, 32) and len(part.entries) == len(part)
        assert part.images.min() == -1 and part.images.max() == 1
        border = torch.cat([part.images[:, :, 0], part.images[:, :, :, 0]], -1)
        assert (border == 1).float().mean() > 0.6, "on white"
    x, y = split.train[0]
    assert x.shape == (3, 32, 32) and split.train.class_names[y] == "smileys-flat"


def test_labels_are_category_and_style(split):
    for part in split:
        names = [part.class_names[y] for y in part.labels]
        assert names == [f"{e.category}-{e.style}" for e in part.entries]
    assert split.train.class_names == split.held_out.class_names
    assert (
        split.train.class_names[:2] == ("smileys-flat", "smileys-3d") and len(split.train.class_names) == 16
    )


def test_a_name_is_drawn_once_in_a_style(split):
    entries = split.train.entries + split.held_out.entries
    assert len({(e.name, e.style) for e in entries}) == len(entries) == 3235
    assert Counter(e.style for e in entries) == {"flat": 1636, "3d": 1599}


def test_the_split_holds_out_both_styles_or_one(split):
    """Of each category a third of the held-out names are unseen, a third seen flat only, a third seen 3D only."""
    seen, unseen = ({(e.name, e.style) for e in part.entries} for part in split)
    for category in CATEGORIES:
        held = {e.name for e in split.held_out.entries if e.category == category}
        kinds = Counter(
            tuple(style for style in ("flat", "3d") if (name, style) in seen)
            for name in held  # styles that are trained on
        )
        pairs = len({e.name for e in split.train.entries if e.category == category} | held)
        assert set(kinds) == {(), ("flat",), ("3d",)} and len(set(kinds.values())) == 1
        assert 0.06 < kinds[()] / pairs < 0.09
    assert not seen & unseen


@pytest.mark.parametrize("classes", [("style",), ("category",), ("name",), ("style", "subcategory")])
def test_classes(classes):
    train, held_out = emoji(["food", "animals"], classes=classes)
    for part in (train, held_out):
        assert [part.class_names[y] for y in part.labels] == [
            "-".join(getattr(e, column) for column in classes) for e in part.entries
        ]
    if classes == ("style",):
        assert train.class_names == ("flat", "3d")


def test_categories_and_styles_choose():
    train, held_out = emoji(["smileys"], ["3d"])
    assert (len(train), len(held_out), train.class_names) == (140, 26, ("smileys-3d",))
    assert {e.style for e in train.entries} == {"3d"}


def test_select_finds_the_same_emoji_in_two_styles(split):
    flat, solid = (split.train.select(name="unicorn face", style=style) for style in ("flat", "3d"))
    assert len(flat) == len(solid) == 1
    others = split.train.select(category="animals", style="3d").images
    apart = (others - flat.images).square().mean((1, 2, 3))
    assert (solid.images - flat.images).square().mean() < apart.median(), "drawn differently, but alike"


def test_the_running_emoji_is_a_face_of_the_training_set(split):
    image, label = running_emoji()
    assert image.shape == (1, 3, 32, 32) and split.train.class_names[label] == "smileys-3d"
    assert (split.train.images == image).flatten(1).all(1).sum() == 1


def test_mirror_images_leave_out_what_has_a_direction(split):
    data = split.train.with_mirror_images()
    added = data.entries[len(split.train) :]
    assert torch.equal(data.images[: len(split.train)], split.train.images)
    names = {e.name for e in added}
    assert not any("left" in name or "clock" in name for name in names)
    assert names.isdisjoint(
        ("dvd", "bus stop", "first place medal", "first quarter moon symbol", "musical note")
    )
    assert {"thumbs up sign", "dog face", "soccer ball"} <= names  # shown in both directions, or round
    assert not any(e.subcategory == "arrow" for e in added)
    assert {"smileys", "animals", "food"} <= {e.category for e in added} and len(added) > 2000
    first = split.train.entries.index(added[0])
    assert torch.equal(data.images[len(split.train)], split.train.images[first].flip(-1))


@error_cases(
    (lambda: emoji(["smiley"]), "category is 'smiley'.*one of smileys, people"),
    (lambda: emoji("smileys"), "categories is 'smileys'.*list"),
    (lambda: emoji([]), r"categories is \[\].*at least one"),
    (lambda: emoji(styles=["3D"]), "style is '3D'.*flat, 3d"),
    (lambda: emoji(classes=["hue"]), r"classes is \['hue'\].*category"),
    (lambda: emoji(classes=[]), r"classes is \[\]"),
    (lambda: emoji(classes=5), "classes is 5"),
    (lambda: emoji(classes=[["style"]]), r"classes is \[\['style'\]\]"),
    (lambda: emoji(3), "categories is 3.*list"),
    (lambda: emoji().train.select(name="unicorn"), "name is 'unicorn'.*unicorn face"),
    (lambda: emoji().train.select(name="grining face"), "name is 'grining face'.*grinning face"),
    (lambda: emoji().train.select(subcategory="cats"), "subcategory is 'cats'.*cat-face"),
    (lambda: emoji().train.select(kind="face"), "kind is no column.*subcategory"),
    (lambda: emoji().train.select(style="flat", category="food", name="unicorn face"), "selects nothing"),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()


@pytest.mark.parametrize("name", ["emoji.npy.xz", "emoji.csv"])
def test_a_damaged_file_is_named(name, tmp_path, monkeypatch):
    for path in module._FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    module._read_files.cache_clear()
    with raises_input_error(f"{name} is damaged"):
        emoji()
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        emoji()
    module._read_files.cache_clear()


# The script that made the files


def test_shrink_averages_on_white():
    """Against Pillow: composite on white, then a box filter, which rounds at another place."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, 256, 4), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "png")
    white = Image.new("RGBA", (256, 256), "white")
    expected = (
        Image.alpha_composite(white, Image.fromarray(pixels)).convert("RGB").resize((32, 32), Image.BOX)
    )
    off = build_emoji.shrink(file.getvalue()).astype(int) - np.asarray(expected)
    assert np.abs(off).max() <= 1 and abs(off.mean()) < 0.5


def test_another_package_is_refused(tmp_path):
    path = tmp_path / "emoji-datasource-google-16.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("package/emoji.json"), BytesIO(json.dumps([]).encode()))
    script = Path(build_emoji.__file__)
    run = subprocess.run(
        [sys.executable, script, path, path, "--out", tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 1 and "its SHA-256 differs" in run.stderr and "Traceback" not in run.stderr


def test_the_table_gives_the_split_that_the_script_assigns():
    table = (module._FOLDER / "emoji.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(table))
    again = [{**row, "split": "train"} for row in rows]
    build_emoji.assign_splits(again)
    assert again == rows


def test_every_emoji_can_be_selected_by_itself():
    """Light ones too, which have no value below 0."""
    for part in emoji():
        for entry in part.entries:
            assert len(part.select(name=entry.name, style=entry.style).images) >= 1


def test_names_are_found_in_any_case(split):
    assert (
        split.train.select(name="Unicorn Face", style="3D").entries
        == split.train.select(name="unicorn face", style="3d").entries
    )
