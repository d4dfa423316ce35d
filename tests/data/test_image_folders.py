"""Layouts of folders as people have them: links, splits, nested classes, tables. Nothing is merged or dropped silently."""

import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dit_nb.image_files import open_images
from support import raises_input_error


def fill(folder, *names):
    """Write a small image for each name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / name)
    return folder


def classes(data) -> dict:
    """Number of images by class."""
    return dict(Counter(data.class_names[k] for k in data.labels)) if data.class_names else {}


PETS = ["cat/1.png", "cat/2.png", "dog/1.png"]

# Links


def test_linked_folders_and_files_are_read(folder, tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", "dog/1.png", "dog/2.png", "x.png")
    fill(folder, "cat/1.png")
    (folder / "dog").symlink_to(elsewhere / "dog")
    (folder / "cat" / "2.png").symlink_to(elsewhere / "x.png")
    assert classes(open_images(folder, 8)) == {"cat": 2, "dog": 2}
    (tmp_path / "all links").mkdir()
    (tmp_path / "all links" / "dog").symlink_to(elsewhere / "dog")
    (tmp_path / "link to the folder").symlink_to(tmp_path / "all links")
    assert classes(open_images(tmp_path / "link to the folder", 8)) == {"dog": 2}


def test_a_link_that_leads_back_is_noted(folder):
    fill(folder, *PETS)
    (folder / "cat" / "again").symlink_to(folder)
    data = open_images(folder, 8)
    assert classes(data) == {"cat": 2, "dog": 1} and "link cat/again" in data.notes[0]


@pytest.mark.parametrize("name", ["dog", "cat/9.png"])
def test_a_link_that_leads_nowhere_is_named(folder, name):
    fill(folder, *PETS[:2])
    (folder / name).symlink_to(folder / "nowhere")
    with raises_input_error(name.replace(".", "[.]")):
        open_images(folder, 8)


# Splits


@pytest.mark.parametrize(
    "train,other",
    [
        ("Train", "Test"),
        ("training", "testing"),
        ("train", "unlabeled"),
        ("TRAIN", "VAL"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("train-set", "held-out"),
        ("trn", "dev"),
    ],
)
def test_splits_in_any_spelling(folder, train, other):
    fill(folder, *(f"{train}/{name}" for name in PETS), *(f"{other}/{name}" for name in PETS[1:]))
    data = open_images(folder, 8)
    assert classes(data) == {"cat": 2, "dog": 1} and f"split {train}" in data.place
    assert data.notes == (f"2 images in {other}",)
    for name in (other, other.lower()):
        assert len(open_images(folder, 8, split=name)) == 2
    with raises_input_error(f"no split nonsense.*{other}"):
        open_images(folder, 8, split="nonsense")


def test_splits_inside_classes_and_inside_one_folder(folder, tmp_path):
    fill(folder, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png", "dog/test/5.png")
    assert classes(open_images(folder, 8)) == {"cat": 1, "dog": 1}
    assert classes(open_images(folder, 8, split="test")) == {"cat": 1, "dog": 2}
    fill(tmp_path / "around", "data/Train/cat/1.png", "data/Train/dog/1.png", "data/Valid/cat/2.png")
    assert classes(open_images(tmp_path / "around", 8)) == {"cat": 1, "dog": 1}


def test_splits_that_are_not_clear(folder, tmp_path):
    fill(folder, "train/1.png", "test/1.png", "extra/1.png")
    with raises_input_error("folders test and train.*beside extra"):
        open_images(folder, 8)
    fill(tmp_path / "two", "train/a/1.png", "training/a/1.png")
    with raises_input_error("train and training for one split"):
        open_images(tmp_path / "two", 8)
    fill(tmp_path / "none", "val/a/1.png", "test/a/1.png")
    with raises_input_error("no split train.*test, val"):
        open_images(tmp_path / "none", 8)
    fill(tmp_path / "only", "test/a/1.png")
    assert "split test" in open_images(tmp_path / "only", 8).place
    with raises_input_error("split is test.*no folders of splits"):
        open_images(fill(tmp_path / "flat", "1.png"), 8, split="test")


def test_words_of_splits_may_be_classes(folder):
    fill(folder, "train/1.png", "bus/1.png", "test tube/1.png")
    assert set(classes(open_images(folder, 8))) == {"train", "bus", "test tube"}


# Nested classes


@pytest.mark.parametrize(
    "rule,wanted",
    [
        ("first", {"cat": 2, "dog": 2}),
        ("last", {"old": 2, "young": 2}),
        ("path", {"cat/old": 1, "cat/young": 1, "dog/old": 1, "dog/young": 1}),
    ],
)
def test_nested_classes_need_a_choice(folder, rule, wanted):
    fill(folder, *(f"{animal}/{age}/1.png" for animal in ("cat", "dog") for age in ("old", "young")))
    with raises_input_error("class_folder whether.*first .cat.*last .old.*path .cat/old"):
        open_images(folder, 8)
    assert classes(open_images(folder, 8, class_folder=rule)) == wanted


def test_one_folder_around_all_classes_is_no_class(folder):
    fill(folder, *(f"photos/{name}" for name in PETS))
    assert classes(open_images(folder, 8)) == {"cat": 2, "dog": 1}


def test_classes_of_different_depth(folder):
    fill(folder, "cat/1.png", "dog/old/1.png")
    with raises_input_error("class_folder"):
        open_images(folder, 8)
    assert classes(open_images(folder, 8, class_folder="first")) == {"cat": 1, "dog": 1}
    with raises_input_error("class_folder is 'middle'"):
        open_images(folder, 8, class_folder="middle")


# Tables


def table(folder, text, name="metadata.csv"):
    (folder / name).write_text(text)
    return folder


def test_images_without_a_row_are_noted(folder):
    table(fill(folder, *(f"{k}.png" for k in range(4))), "file_name,label\n0.png,a\n1.png,b\n")
    data = open_images(folder, 8)
    assert classes(data) == {"a": 1, "b": 1}
    assert data.notes == ("2 images without a row in metadata.csv, such as 2.png",)


@pytest.mark.parametrize("labels", [("0.13", "0.57"), ("1", "2.5"), ("nan", "1")])
def test_labels_that_are_fractions_are_refused(folder, labels):
    table(
        fill(folder, "0.png", "1.png"),
        "file_name,label\n" + "".join(f"{k}.png,{v}\n" for k, v in enumerate(labels)),
    )
    with raises_input_error("label .*(fraction|missing)"):
        open_images(folder, 8)


@pytest.mark.parametrize(
    "labels,names", [(("10", "9"), ("9", "10")), (("3.0", "2.0"), ("2", "3")), (("007", "08"), ("007", "08"))]
)
def test_labels_that_are_numbers(folder, labels, names):
    table(fill(folder, "0.png", "1.png"), f"file_name,label\n0.png,{labels[0]}\n1.png,{labels[1]}\n")
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
    table(fill(folder, "0.png", "1.png"), "\n".join([header, *rows, ""]), name)
    data = open_images(folder, 8)
    assert classes(data) == {"a": 1, "b": 1} and f"classes by {name}" in data.place
    assert ("columns text of metadata.csv" in data.notes) == ("text" in header)


def test_a_table_beside_folders_of_splits(folder):
    """As competitions hand it out: train.csv names the images of train/ by number."""
    fill(folder, "train/0.png", "train/1.png", "test/2.png")
    table(folder, "id,label\n0,a\n1,b\n", "train.csv")
    table(folder, "id,label\n2,a\n", "sample_submission.csv")
    table(folder, "id,label\n2,a\n", "test.csv")
    data = open_images(folder, 8)
    assert classes(data) == {"a": 1, "b": 1} and "1 images in test" in data.notes
    assert any("sample_submission.csv" in note for note in data.notes)


def test_a_table_in_each_split(folder):
    for split, label in (("train", "a"), ("test", "b")):
        table(fill(folder, f"{split}/0.png"), f"file_name,label\n0.png,{label}\n", f"{split}/metadata.csv")
    assert classes(open_images(folder, 8)) == {"a": 1}
    assert classes(open_images(folder, 8, split="test")) == {"b": 1}


def test_captions_give_no_classes_and_are_noted(folder):
    data = open_images(table(fill(folder, "0.png"), "file_name,text\n0.png,a cat\n"), 8)
    assert (
        data.class_names == () and "columns text of metadata.csv, so that there are no classes" in data.notes
    )


def test_the_label_column_can_be_chosen(folder):
    table(fill(folder, "0.png", "1.png"), "file_name,breed_label,age_label\n0.png,a,old\n1.png,a,young\n")
    with raises_input_error("breed_label and age_label: choose one with label_column"):
        open_images(folder, 8)
    assert classes(open_images(folder, 8, label_column="age_label")) == {"old": 1, "young": 1}
    with raises_input_error("label_column is x.*columns"):
        open_images(folder, 8, label_column="x")
    with raises_input_error("label_column is x.*no table"):
        open_images(fill(folder / "sub", "a/1.png"), 8, label_column="x")


def test_tables_that_are_refused(folder):
    fill(folder, "0.png", "1.png")
    table(folder, "file_name,label\n0.png,a\n0.png,b\n")
    with raises_input_error("names 0.png twice"):
        open_images(folder, 8)
    table(folder, '{"file_name": "0.png", "label": ["a", "b"]}\n', "metadata.jsonl")
    with raises_input_error("metadata.csv and metadata.jsonl"):
        open_images(folder, 8)
    os.remove(folder / "metadata.csv")
    with raises_input_error("label .* is a list"):
        open_images(folder, 8)


def test_a_table_without_meaning_is_noted(folder):
    table(fill(folder, *PETS), "epoch,loss\n1,2\n", "log.csv")
    (folder / "readme.txt").write_text("x")
    data = open_images(folder, 8)
    assert classes(data) == {"cat": 2, "dog": 1}
    assert (
        any("table log.csv" in note for note in data.notes)
        and "1 other files (.txt; --captions reads .txt files)" in data.notes
    )


@pytest.mark.parametrize(
    "suffix,cure", [(".npy", "PNG"), (".zip", "unpack"), (".tar", "stream:"), (".parquet", "hub:")]
)
def test_folders_that_hold_something_else(folder, suffix, cure):
    for k in range(2):
        (folder / f"{k}{suffix}").write_bytes(b"x")
    with raises_input_error(f"holds no images, but 2 {suffix} files: .*{cure}"):
        open_images(folder, 8)
