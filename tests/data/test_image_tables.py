"""Tables of images: metadata in every spelling, labels that are numbers, fractions or missing, and the column of labels."""

import csv
import json
import os

import numpy as np
import pytest

from dit_nb.batches import BatchReader
from dit_nb.image_files import open_images
from dit_nb.image_tables import _number_classes
from support import raises_input_error
from support_data import PETS, class_counts, fill, write_image, write_table


def write_rows(folder, kind, rows):
    """metadata.csv or metadata.jsonl."""
    if kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
        return
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "classes,names,ids", [(("tabby", "ñandú"), ("tabby", "ñandú"), [0, 1]), ((10, 9), ("9", "10"), [1, 0])]
)
def test_metadata(folder, kind, classes, names, ids):
    for k, name in enumerate(("a b.png", "sub/ü.png", "not listed.png")):
        write_image(folder / name, np.full((8, 8), 100 * k, dtype=np.uint8))
    rows = [{"file_name": f, "label": c} for f, c in zip(("a b.png", "sub/ü.png"), classes)]
    write_rows(folder, kind, rows)
    data = open_images(folder, 8, channels=1)
    assert data.class_names == names and len(data) == 2
    x, labels = BatchReader(data)([0, 1])
    assert labels.tolist() == ids
    assert np.allclose(x.mean((1, 2, 3)), [-1, 100 / 127.5 - 1])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("classes", [("cat", None), (3, None)])
def test_metadata_with_a_label_missing(folder, kind, classes):
    for name in ("a.png", "b.png"):
        write_image(folder / name)
    write_rows(folder, kind, [{"file_name": f, "label": c} for f, c in zip(("a.png", "b.png"), classes)])
    with pytest.raises(ValueError, match="label.*image 1"):
        open_images(folder, 8)


def test_nan_is_a_missing_label():
    with pytest.raises(ValueError, match="label.*image 1"):
        _number_classes([1.0, float("nan"), 2.0])


def test_metadata_that_names_a_missing_file(folder):
    write_image(folder / "a.png")
    write_rows(folder, "csv", [{"file_name": "a.png", "label": "x"}, {"file_name": "gone.png", "label": "x"}])
    with pytest.raises(ValueError, match="gone.png"):
        open_images(folder, 8)
    assert len(open_images(folder, 8, skip_bad=True)) == 1


def test_metadata_without_classes(folder):
    write_image(folder / "a.png")
    write_rows(folder, "csv", [{"file_name": "a.png", "text": "a cat"}])
    assert open_images(folder, 8).class_names == ()


@pytest.mark.parametrize("text", ["", "name,label\na.png,1\n", "\0\1\2"])
def test_invalid_metadata(folder, text):
    write_image(folder / "a.png")
    (folder / "metadata.csv").write_text(text)
    with raises_input_error(f"table {folder / 'metadata.csv'}.*images"):
        open_images(folder, 8)


def with_labels(folder, labels):
    """As many images, and a table of their labels."""
    rows = "".join(f'{k}.png,"{value}"\n' for k, value in enumerate(labels))
    return write_table(fill(folder, *(f"{k}.png" for k in range(len(labels)))), "file_name,label\n" + rows)


@pytest.mark.parametrize(
    "labels",
    [
        ("0.13", "0.57"),
        ("1", "2.5"),
        ("0.13", "0.57", "unknown", "0.33"),
        ("cat", "0.5"),
        ("0,13", "0,57"),
        ("1,5", "2"),
        (".5", "1e-3"),
        ("inf", "0.1"),
    ],
)
def test_labels_that_are_fractions_are_refused(folder, labels):
    with raises_input_error("label .* is a fraction, but labels must be classes"):
        open_images(with_labels(folder, labels), 8)


@pytest.mark.parametrize("labels", [("nan", "1"), ("cat", "NaN"), ("cat", ""), ("nan", "0.5")])
def test_labels_that_are_missing_are_refused(folder, labels):
    with raises_input_error("label of image . is missing"):
        open_images(with_labels(folder, labels), 8)


@pytest.mark.parametrize(
    "labels", [("1,000", "2,000"), ("v1.5", "v2"), ("1.2.3", "1.2.4"), ("1_5", "2_5"), ("5%", "8%")]
)
def test_names_that_only_look_like_fractions(folder, labels):
    assert open_images(with_labels(folder, labels), 8).class_names == labels


def test_fractions_among_numbers_and_names_of_json_are_refused(folder):
    fill(folder, "0.png", "1.png")
    write_table(
        folder,
        '{"file_name": "0.png", "label": 0.5}\n{"file_name": "1.png", "label": "cat"}\n',
        "metadata.jsonl",
    )
    with raises_input_error("label 0.5 is a fraction"):
        open_images(folder, 8)


@pytest.mark.parametrize(
    "labels,names", [(("10", "9"), ("9", "10")), (("3.0", "2.0"), ("2", "3")), (("007", "08"), ("007", "08"))]
)
def test_labels_that_are_numbers(folder, labels, names):
    write_table(fill(folder, "0.png", "1.png"), f"file_name,label\n0.png,{labels[0]}\n1.png,{labels[1]}\n")
    assert open_images(folder, 8).class_names == names


@pytest.mark.parametrize(
    "name,header,rows",
    [
        ("labels.csv", "file_name,label", ["0.png,a", "1.png,b"]),
        ("labels.csv", "id,class", ["0,a", "1,b"]),
        ("train.tsv", "image\tcategory", ["0.png\ta", "1.png\tb"]),
        ("metadata.csv", "filename,fine_label", ["0.png,a", "1.png,b"]),
        ("metadata.csv", "file_name,text,label", ["0.png,x,a", "1.png,y,b"]),
    ],
)
def test_tables_as_people_have_them(folder, name, header, rows):
    write_table(fill(folder, "0.png", "1.png"), "\n".join([header, *rows, ""]), name)
    data = open_images(folder, 8)
    assert class_counts(data) == {"a": 1, "b": 1} and f"classes by {name}" in data.place
    assert ("columns text of metadata.csv" in data.notes) == ("text" in header)


def test_a_table_beside_folders_of_splits(folder):
    """As competitions hand it out: train.csv names the images of train/ by number."""
    fill(folder, "train/0.png", "train/1.png", "test/2.png")
    write_table(folder, "id,label\n0,a\n1,b\n", "train.csv")
    write_table(folder, "id,label\n2,a\n", "sample_submission.csv")
    write_table(folder, "id,label\n2,a\n", "test.csv")
    data = open_images(folder, 8)
    assert class_counts(data) == {"a": 1, "b": 1} and "1 images in test" in data.notes
    assert any("sample_submission.csv" in note for note in data.notes)


def test_a_table_in_each_split(folder):
    for split, label in (("train", "a"), ("test", "b")):
        write_table(
            fill(folder, f"{split}/0.png"), f"file_name,label\n0.png,{label}\n", f"{split}/metadata.csv"
        )
    assert class_counts(open_images(folder, 8)) == {"a": 1}
    assert class_counts(open_images(folder, 8, split="test")) == {"b": 1}


def test_captions_give_no_classes_and_are_noted(folder):
    data = open_images(write_table(fill(folder, "0.png"), "file_name,text\n0.png,a cat\n"), 8)
    assert (
        data.class_names == () and "columns text of metadata.csv, so that there are no classes" in data.notes
    )


def test_the_label_column_can_be_chosen(folder):
    write_table(
        fill(folder, "0.png", "1.png"), "file_name,breed_label,age_label\n0.png,a,old\n1.png,a,young\n"
    )
    with raises_input_error("breed_label and age_label: choose one with label_column"):
        open_images(folder, 8)
    assert class_counts(open_images(folder, 8, label_column="age_label")) == {"old": 1, "young": 1}
    with raises_input_error("label_column is x.*columns"):
        open_images(folder, 8, label_column="x")
    with raises_input_error("label_column is x.*no table"):
        open_images(fill(folder / "sub", "a/1.png"), 8, label_column="x")


@pytest.mark.parametrize(
    "name,file", [("labels.csv", "id"), ("train.csv", "file_name"), ("a.jsonl", "image")]
)
@pytest.mark.parametrize("images", [["0.png", "1.png"], ["a/0.png", "b/1.png"]], ids=["flat", "in folders"])
def test_the_label_column_of_any_table_that_names_images(folder, name, file, images):
    fill(folder, *images)
    rows = [
        {file: images[0][:-4] if file == "id" else images[0], "breed": "x"},
        {file: images[1], "breed": "y"},
    ]
    text = f"{file},breed\n" + "".join(f"{row[file]},{row['breed']}\n" for row in rows)
    write_table(folder, "\n".join(map(json.dumps, rows)) if name == "a.jsonl" else text, name)
    data = open_images(folder, 8)
    assert len(data.class_names) == (2 if "/" in images[0] else 0) and len(data.notes) == 1
    assert data.notes[0] == f"table {name}, " + (
        "as folders give the classes"
        if "/" in images[0]
        else "which has breed: choose a column of classes with label_column"
    )
    data = open_images(folder, 8, label_column="breed")
    assert class_counts(data) == {"x": 1, "y": 1} and data.notes == () and f"classes by {name}" in data.place


def test_the_table_that_has_the_label_column(folder):
    write_table(fill(folder, "0.png", "1.png"), "file_name,text\n0.png,a\n1.png,b\n")
    write_table(folder, "id,breed\n0,x\n1,y\n", "labels.csv")
    data = open_images(folder, 8, label_column="breed")
    assert (
        class_counts(data) == {"x": 1, "y": 1}
        and "table metadata.csv, which has no column breed" in data.notes[0]
    )
    write_table(folder, "id,breed\n0,x\n1,y\n", "other.csv")
    with raises_input_error("tables labels.csv and other.csv: name one"):
        open_images(folder, 8, label_column="breed")


def test_a_table_of_other_images_is_noted(folder):
    write_table(fill(folder, "0.png"), "file_name,label\n8.png,a\n9.png,b\n", "labels.csv")
    assert open_images(folder, 8).notes == ("table labels.csv, which names no images",)


def test_tables_that_are_named_after_splits(folder):
    fill(folder, "0.png", "1.png")
    for name, row in (("train.csv", "0,a"), ("test_labels.csv", "1,b")):
        write_table(folder, f"id,label\n{row}\n", name)
    with raises_input_error("tables test_labels.csv and train.csv"):
        open_images(folder, 8)
    assert class_counts(open_images(folder, 8, split="train")) == {"a": 1}
    assert class_counts(open_images(folder, 8, split="test")) == {"b": 1}


def test_tables_that_are_refused(folder):
    fill(folder, "0.png", "1.png")
    write_table(folder, "file_name,label\n0.png,a\n0.png,b\n")
    with raises_input_error("names 0.png twice"):
        open_images(folder, 8)
    write_table(folder, '{"file_name": "0.png", "label": ["a", "b"]}\n', "metadata.jsonl")
    with raises_input_error("metadata.csv and metadata.jsonl"):
        open_images(folder, 8)
    os.remove(folder / "metadata.csv")
    with raises_input_error("label .* is a list"):
        open_images(folder, 8)


def test_a_table_without_meaning_is_noted(folder):
    write_table(fill(folder, *PETS), "epoch,loss\n1,2\n", "log.csv")
    (folder / "readme.txt").write_text("x")
    data = open_images(folder, 8)
    assert class_counts(data) == {"cat": 2, "dog": 1}
    assert (
        any("table log.csv" in note for note in data.notes)
        and "1 other files (.txt; --captions reads .txt files)" in data.notes
    )
