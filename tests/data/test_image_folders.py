"""Layouts of folders as people have them: links, splits, nested classes, tables. Nothing is merged or dropped silently."""

import json
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


def test_words_of_splits_may_be_classes_if_that_is_said(folder):
    fill(folder, "train/1.png", "bus/1.png", "test tube/1.png")
    with raises_input_error(
        "folders test tube and train, which look like splits, beside bus.*class_folder to first"
    ):
        open_images(folder, 8)
    for rule in ("first", "last", "path"):
        assert set(classes(open_images(folder, 8, class_folder=rule))) == {"train", "bus", "test tube"}
    data = open_images(folder, 8, split="train")
    assert len(data) == 1 and data.notes == ("1 images in bus", "1 images in test tube")


def test_one_of_many_classes_may_look_like_a_split(folder):
    """As in CIFAR-100 and COCO: nobody has so many splits."""
    names = ["train", *(f"class {k}" for k in range(8))]
    fill(folder, *(f"{name}/1.png" for name in names))
    assert set(classes(open_images(folder, 8))) == set(names)
    assert len(open_images(folder, 8, split="train")) == 1
    fill(folder, "test/1.png")
    with raises_input_error("test and train, which look like splits, beside class .* and 5 more"):
        open_images(folder, 8, class_folder="first")


FLAT = ["1.png", "2.png", "3.png"]


@pytest.mark.parametrize("below", [FLAT, PETS], ids=["flat", "classes"])
@pytest.mark.parametrize(
    "train,others",
    [
        ("trainset", ["testset"]),
        ("train_images", ["test_images"]),
        ("seg_train", ["seg_test"]),
        ("mnist_train", ["mnist_test"]),
        ("x_train", ["x_test"]),
        ("trainval", ["tests"]),
        ("train", ["test_unseen", "test_seen"]),
        ("imagesTr", ["imagesTs"]),
        ("TrainingData", ["hold-out", "unlabeledImages"]),
        ("train", ["test-dev2017", "val2017"]),
    ],
)
def test_names_that_look_like_splits(folder, train, others, below):
    fill(folder, *(f"{name}/{file}" for name in (train, *others) for file in below))
    data = open_images(folder, 8)
    assert len(data) == 3 and f"split {train}" in data.place
    assert data.notes == tuple(f"3 images in {name}" for name in sorted(others))
    assert classes(data) == ({} if below is FLAT else {"cat": 2, "dog": 1})
    assert len(open_images(folder, 8, split=others[0])) == 3


@pytest.mark.parametrize("below", [FLAT, PETS], ids=["flat", "classes"])
@pytest.mark.parametrize(
    "names,seen",
    [
        (["train", "extra"], "folder train, which looks like a split, beside extra, which does not"),
        (["plain", "test"], "folder test, which looks like a split, beside plain"),
        (
            ["trainset", "testset", "extra"],
            "folders testset and trainset, which look like splits, beside extra",
        ),
        (["train_a", "train_b"], "folders train_a and train_b for one split"),
        (["train_images", "train_masks", "test_images"], "train_images and train_masks for one split"),
        (["imagesTr", "labelsTr"], "imagesTr and labelsTr for one split"),
    ],
)
def test_folders_that_are_no_clear_splits(folder, names, seen, below):
    """Refused, with what was seen; each folder can be chosen by its name."""
    fill(folder, *(f"{name}/{file}" for name in names for file in below))
    with raises_input_error(f"{seen}.*choose one with split"):
        open_images(folder, 8)
    for name in names:
        data = open_images(folder, 8, split=name)
        assert len(data) == 3 and classes(data) == ({} if below is FLAT else {"cat": 2, "dog": 1})


@pytest.mark.parametrize(
    "name", ["carnival", "contest", "terrain", "strain", "valley", "device", "interval", "tr"]
)
def test_names_that_only_contain_letters_of_a_split(folder, name):
    fill(folder, f"{name}/1.png", "other/1.png")
    assert set(classes(open_images(folder, 8))) == {name, "other"}


def test_class_folder_does_not_merge_splits(folder):
    fill(folder, *(f"{name}/{file}" for name in ("trainset", "testset") for file in PETS))
    for rule in ("first", "last", "path"):
        data = open_images(folder, 8, class_folder=rule)
        assert classes(data) == {"cat": 2, "dog": 1} and data.notes == ("3 images in testset",)
    fill(folder, "extra/cat/1.png")
    for rule in ("first", "last", "path"):
        with raises_input_error("testset and trainset, which look like splits, beside extra"):
            open_images(folder, 8, class_folder=rule)


def test_images_beside_the_folders_of_splits(folder):
    fill(folder, "sheet.png", "train/cat/1.png", "train/dog/1.png", "test/cat/1.png")
    with raises_input_error("sheet.png beside train: choose a folder with split"):
        open_images(folder, 8)
    data = open_images(folder, 8, split="train")
    assert classes(data) == {"cat": 1, "dog": 1}
    assert data.notes == ("1 images in test", "1 images beside the folders of splits")


def test_nested_classes_one_of_which_is_a_train(folder):
    fill(folder, "vehicles/train/1.png", "vehicles/plane/1.png", "animals/cat/1.png")
    assert classes(open_images(folder, 8, class_folder="first")) == {"vehicles": 2, "animals": 1}
    assert set(classes(open_images(folder, 8, class_folder="last"))) == {"train", "plane", "cat"}
    assert len(open_images(folder, 8, split="train")) == 1


# What is left out is noted


def test_folders_of_systems_are_passed_over_and_no_others(folder):
    fill(folder, *PETS, "__background__/1.png", "__MACOSX/1.png", ".cache/1.png")
    assert classes(open_images(folder, 8)) == {"cat": 2, "dog": 1, "__background__": 1}


def test_empty_folders_are_noted(folder):
    fill(folder, *PETS)
    (folder / "horse" / "old").mkdir(parents=True)
    assert open_images(folder, 8).notes == ("folder horse, which holds no images",)
    (folder / "cow").mkdir()
    (folder / "cow" / "readme.txt").write_text("none")
    notes = open_images(folder, 8).notes
    assert notes[0] == "2 folders that hold no images, such as cow" and "1 other files (.txt" in notes[1]
    fill(folder / "split", "train/1.png", "test/a/1.png")
    (folder / "split" / "test" / "b").mkdir()
    assert open_images(folder / "split", 8).notes == ("1 images in test",), (
        "another split's are its own affair"
    )
    (folder / "only" / "train").mkdir(parents=True)
    data = open_images(fill(folder / "only", "test/1.png"), 8)
    assert "split test" in data.place and data.notes == ("folder train, which holds no images",)


@pytest.mark.parametrize("files", [["cat/1.png"], [], ["train/1.png"], ["a/b/1.png"]])
def test_a_link_to_a_folder_that_leads_nowhere(folder, files):
    fill(folder, *files)
    (folder / "dog").symlink_to(folder / "nowhere")
    with raises_input_error("link dog in data folder .* leads nowhere: fix or remove it"):
        open_images(folder, 8)


def test_a_link_to_a_file_that_leads_nowhere_may_be_left_out(folder):
    fill(folder, *PETS)
    (folder / "cat" / "9.png").symlink_to(folder / "nowhere")
    with raises_input_error("9.png cannot be read: the link leads nowhere"):
        open_images(folder, 8)
    assert len(open_images(folder, 8, skip_bad=True)) == 3


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


def with_labels(folder, labels):
    """As many images, and a table of their labels."""
    rows = "".join(f'{k}.png,"{value}"\n' for k, value in enumerate(labels))
    return table(fill(folder, *(f"{k}.png" for k in range(len(labels)))), "file_name,label\n" + rows)


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
    table(
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
    table(folder, "\n".join(map(json.dumps, rows)) if name == "a.jsonl" else text, name)
    data = open_images(folder, 8)
    assert len(data.class_names) == (2 if "/" in images[0] else 0) and len(data.notes) == 1
    assert data.notes[0] == f"table {name}, " + (
        "as folders give the classes"
        if "/" in images[0]
        else "which has breed: choose a column of classes with label_column"
    )
    data = open_images(folder, 8, label_column="breed")
    assert classes(data) == {"x": 1, "y": 1} and data.notes == () and f"classes by {name}" in data.place


def test_the_table_that_has_the_label_column(folder):
    table(fill(folder, "0.png", "1.png"), "file_name,text\n0.png,a\n1.png,b\n")
    table(folder, "id,breed\n0,x\n1,y\n", "labels.csv")
    data = open_images(folder, 8, label_column="breed")
    assert (
        classes(data) == {"x": 1, "y": 1} and "table metadata.csv, which has no column breed" in data.notes[0]
    )
    table(folder, "id,breed\n0,x\n1,y\n", "other.csv")
    with raises_input_error("tables labels.csv and other.csv: name one"):
        open_images(folder, 8, label_column="breed")


def test_a_table_of_other_images_is_noted(folder):
    table(fill(folder, "0.png"), "file_name,label\n8.png,a\n9.png,b\n", "labels.csv")
    assert open_images(folder, 8).notes == ("table labels.csv, which names no images",)


# Splits in a table


def test_a_column_of_splits_is_used(folder):
    rows = ["0.png,a,train", "1.png,b,Train", "2.png,a,val", "3.png,a,test"]
    table(fill(folder, *(f"{k}.png" for k in range(5))), "\n".join(["file_name,label,split", *rows, ""]))
    data = open_images(folder, 8)
    assert classes(data) == {"a": 1, "b": 1} and "split Train" in data.place
    assert {*data.notes[:2]} == {"1 rows of metadata.csv, split test", "1 rows of metadata.csv, split val"}
    assert "1 images without a row in metadata.csv, such as 4.png" in data.notes
    assert classes(open_images(folder, 8, split="validation")) == {"a": 1}
    with raises_input_error("no split extra: choose one with split, of Train, test, train, val"):
        open_images(folder, 8, split="extra")


@pytest.mark.parametrize(
    "values,seen", [("01", "0 and 1 for one split"), (["train", "junk"], "train.*beside junk")]
)
def test_a_column_of_splits_that_is_not_clear(folder, values, seen):
    rows = [f"{k}.png,a,{value}" for k, value in enumerate(values)]
    table(fill(folder, "0.png", "1.png"), "\n".join(["file_name,label,split", *rows, ""]))
    with raises_input_error(
        f"column split of table .*metadata.csv has the value.*{seen}.*choose one with split"
    ):
        open_images(folder, 8)
    assert len(open_images(folder, 8, split=values[1])) == 1


def test_a_column_that_may_be_one_of_splits(folder):
    fill(folder, "0.png", "1.png")
    table(folder, "file_name,label,subset\n0.png,a,train\n1.png,b,test\n")
    assert len(open_images(folder, 8)) == 1
    table(folder, "file_name,label,subset\n0.png,a,small\n1.png,b,test\n")
    assert len(open_images(folder, 8)) == 2
    table(folder, "file_name,split\n0.png,train\n1.png,test\n")
    assert set(classes(open_images(folder, 8, label_column="split"))) == {"train", "test"}


def test_captions_of_a_split_by_a_column(folder):
    table(fill(folder, "0.png", "1.png"), "file_name,text,split\n0.png,a cat,train\n1.png,a dog,test\n")
    assert open_images(folder, 8, captions=True).captions == ("a cat",)
    assert open_images(folder, 8, captions=True, split="test").captions == ("a dog",)


def test_one_table_for_folders_of_splits(folder):
    """Its rows of other splits are no missing images."""
    fill(folder, "train/0.png", "test/1.png")
    table(folder, "file_name,label,split\ntrain/0.png,a,train\ntest/1.png,b,test\n")
    assert classes(open_images(folder, 8)) == {"a": 1} and classes(open_images(folder, 8, split="test")) == {
        "b": 1
    }
    table(folder, "file_name,label\ntrain/0.png,a\ntest/1.png,b\nnone.png,a\n")
    with raises_input_error("none.png cannot be read"):
        open_images(folder, 8)


def test_tables_that_are_named_after_splits(folder):
    fill(folder, "0.png", "1.png")
    for name, row in (("train.csv", "0,a"), ("test_labels.csv", "1,b")):
        table(folder, f"id,label\n{row}\n", name)
    with raises_input_error("tables test_labels.csv and train.csv"):
        open_images(folder, 8)
    assert classes(open_images(folder, 8, split="train")) == {"a": 1}
    assert classes(open_images(folder, 8, split="test")) == {"b": 1}


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
