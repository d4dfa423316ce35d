"""Captions of images: tables, text files, data sets of the Hub; what is left out, and what is refused."""

import csv
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from dit_nb.image_files import open_images
from dit_nb.since.text import data_captions
from dit_nb.subsets import _data_fingerprint, hold_out
from support import raises_input_error

TEXTS = {"a.png": "a red square", "b.png": "a café, in green", "c.png": "blue"}


@pytest.fixture
def pictures(folder):
    """Three images, which differ in their brightness."""
    for i, name in enumerate(TEXTS):
        Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)).save(folder / name)
    return folder


def write_csv(folder, rows, name="metadata.csv", **options):
    with open(folder / name, "w", newline="", **options) as file:
        csv.writer(file).writerows(rows)


def as_csv(folder, texts):
    write_csv(folder, [("file_name", "text"), *texts.items()], encoding="utf-8-sig")


def as_jsonl(folder, texts):
    rows = [json.dumps({"text": text, "file_name": name}) for name, text in reversed(texts.items())]
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")


def as_text_files(folder, texts):
    for name, text in texts.items():
        (folder / name).with_suffix(".txt").write_text(text + "\n", encoding="utf-8")


def captions_by_brightness(data):
    "Captions in the order of the images' brightness: each must have stayed with its image."
    order = np.argsort([float(data[i][0].mean()) for i in range(len(data))])
    return [data_captions(data)[i] for i in order]


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_text_files])
def test_three_forms(pictures, write):
    write(pictures, TEXTS)
    data = open_images(pictures, 8, captions=True)
    assert captions_by_brightness(data) == list(TEXTS.values())
    assert data.labels is None and data.class_names == () and data.notes == ()
    assert data.place.endswith("captions by text files" if write is as_text_files else "metadata.csv") or (
        write is as_jsonl and data.place.endswith("metadata.jsonl")
    )


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_text_files])
def test_images_without_a_caption_are_left_out_and_told(pictures, write):
    write(pictures, {"c.png": "blue", "b.png": "  "})
    data = open_images(pictures, 8, captions=True)
    assert data.captions == ("blue",) and len(data) == 1 and data.path(0).endswith("c.png")
    told = "; ".join(data.notes)
    assert "images without a caption" in told
    assert ("1 images without a row in metadata" in told) == (write is not as_text_files)


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_text_files])
def test_no_caption_at_all(pictures, write):
    write(pictures, dict.fromkeys(TEXTS, ""))
    with raises_input_error("has no captions: add a table metadata.csv"):
        open_images(pictures, 8, captions=True)


def test_a_folder_without_captions(pictures):
    write_csv(pictures, [("file_name", "label"), ("a.png", "1")])
    with raises_input_error("has no captions: add a table"):
        open_images(pictures, 8, captions=True)


def test_text_files_that_belong_to_no_image_are_other_files(pictures):
    as_text_files(pictures, TEXTS)
    (pictures / "README.txt").write_text("read me")
    assert open_images(pictures, 8, captions=True).notes == ("1 other files (.txt)",)
    assert open_images(pictures, 8).notes == ("4 other files (.txt; --captions reads .txt files)",)


def test_folders_are_no_classes_for_captions(pictures):
    (pictures / "10_blue" / "deep").mkdir(parents=True)
    (pictures / "c.png").rename(pictures / "10_blue" / "deep" / "c.png")
    (pictures / "10_blue" / "deep" / "c.txt").write_text("deep\nblue")
    data = open_images(pictures, 8, captions=True)
    assert data.captions == ("deep blue",) and data.class_names == ()


def test_another_table_another_column_and_a_split(pictures):
    (pictures / "train").mkdir()
    (pictures / "test").mkdir()
    for name in TEXTS:
        (pictures / name).rename(pictures / ("test" if name == "c.png" else "train") / name)
    rows = [
        ("image", "caption", "notes"),
        *((f"train/{name}", text, text[::-1]) for name, text in TEXTS.items()),
    ]
    write_csv(pictures, rows[:3], "labels.csv")
    data = open_images(pictures, 8, captions=True)
    assert data.captions == tuple(TEXTS.values())[:2]
    assert "columns notes of labels.csv" in data.notes and "1 images in test" in data.notes
    assert open_images(pictures, 8, captions="notes").captions[0] == "erauqs der a"
    with raises_input_error(
        "captions is caption_2, but .* no table with the columns file_name and caption_2"
    ):
        open_images(pictures, 8, captions="caption_2")


def test_a_folder_that_looks_like_a_split_is_not_merged_with_others(pictures):
    as_text_files(pictures, TEXTS)
    for name in TEXTS:
        place = pictures / ("plane" if name == "c.png" else "train")
        place.mkdir(exist_ok=True)
        for file in ((pictures / name), (pictures / name).with_suffix(".txt")):
            file.rename(place / file.name)
    with raises_input_error(
        "train, which looks like a split, beside plane.*split, or rename what is no split"
    ):
        open_images(pictures, 8, captions=True)
    assert open_images(pictures, 8, captions=True, split="train").captions == tuple(TEXTS.values())[:2]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_refused(pictures, encoding):
    (pictures / "b.txt").write_bytes("café".encode(encoding))
    with raises_input_error(r"b\.txt cannot be read: it must be text in UTF-8"):
        open_images(pictures, 8, captions=True)
    (pictures / "b.txt").unlink()
    write_csv(pictures, [("file_name", "text"), *TEXTS.items()], encoding=encoding)
    with raises_input_error(r"metadata\.csv cannot be read"):
        open_images(pictures, 8, captions=True)


def test_tables_that_do_not_fit(pictures):
    head = ("file_name", "text")
    write_csv(pictures, [head, *TEXTS.items(), ("a.png", "again")])
    with raises_input_error(r"names a\.png twice"):
        open_images(pictures, 8, captions=True)
    (pictures / "metadata.csv").write_text("file_name,text\na.png,red, and large\n")  # no quotes
    with raises_input_error("more fields than columns, after 'red'"):
        open_images(pictures, 8, captions=True)
    for value in (7, ["one", "two"], {"en": "one"}):
        (pictures / "metadata.csv").unlink(missing_ok=True)
        (pictures / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": value}))
        with raises_input_error("must have one text for each image"):
            open_images(pictures, 8, captions=True)


def test_a_row_without_its_image(pictures):
    as_csv(pictures, {**TEXTS, "gone.png": "nothing"})
    with raises_input_error(r"gone\.png cannot be read"):
        open_images(pictures, 8, captions=True)
    data = open_images(pictures, 8, captions=True, skip_bad=True)
    assert captions_by_brightness(data) == list(TEXTS.values()) and "gone.png" in data.skipped[0]


def test_captions_follow_parts_and_belong_to_the_fingerprint(pictures):
    as_text_files(pictures, TEXTS)
    data = open_images(pictures, 8, captions=True)
    train, held_out = hold_out(data, 0.3)
    assert sorted(data_captions(train) + data_captions(held_out)) == sorted(TEXTS.values())
    assert data_captions(train) == [data.captions[i] for i in train.indices]
    before = _data_fingerprint(data)
    assert before == _data_fingerprint(open_images(pictures, 8, captions=True))
    (pictures / "a.txt").write_text("a red circle")
    assert before != _data_fingerprint(open_images(pictures, 8, captions=True))


def test_arguments_that_do_not_fit(pictures):
    as_csv(pictures, TEXTS)
    for name, value in {"label_column": "text", "class_folder": "first"}.items():
        with raises_input_error(f"{name} is {value}, but must not be given with captions"):
            open_images(pictures, 8, captions=True, **{name: value})
    with raises_input_error("captions is True, but must not be given for digits"):
        open_images("digits", captions=True)
    with raises_input_error("captions is text, but must not be given for emoji"):
        open_images("emoji", captions="text")
    assert len(data_captions(open_images("emoji", captions=True))) == len(open_images("emoji"))


def test_a_data_set_of_the_hub(pictures, tmp_path):
    images = [str(pictures / name) for name in TEXTS]
    columns = {"image": images, "text": ["one", None, "three"], "label": [0, 1, 2]}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    (tmp_path / "hub").mkdir()
    rows.to_parquet(tmp_path / "hub" / "train.parquet")
    data = open_images(f"hub:{tmp_path / 'hub'}", 8, captions=True)
    assert captions_by_brightness(data) == ["one", "three"] and data.labels is None
    assert data.notes == ("1 images without a caption", "columns label")
    with raises_input_error("has the columns image, text, label, but must have one for captions: prompt"):
        open_images(f"hub:{tmp_path / 'hub'}", 8, captions="prompt")
    with raises_input_error("the caption 0, but must have one text"):
        open_images(f"hub:{tmp_path / 'hub'}", 8, captions="label")


def test_a_first_row_without_a_caption_hides_no_column(pictures):
    rows = [{"file_name": "a.png"}, {"file_name": "b.png", "text": "green"}]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = open_images(pictures, 8, captions=True)
    assert data.captions == ("green",) and any("without a caption" in note for note in data.notes)
