"""Names of splits in any spelling, and folders that look like splits but are not, or are not clear."""

import pytest

from dit_nb.image_files import open_images
from support import raises_input_error
from support_data import PETS, class_counts, fill


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
    assert class_counts(data) == {"cat": 2, "dog": 1} and f"split {train}" in data.place
    assert data.notes == (f"2 images in {other}",)
    for name in (other, other.lower()):
        assert len(open_images(folder, 8, split=name)) == 2
    with raises_input_error(f"no split nonsense.*{other}"):
        open_images(folder, 8, split="nonsense")


def test_words_of_splits_may_be_classes_if_that_is_said(folder):
    fill(folder, "train/1.png", "bus/1.png", "test tube/1.png")
    with raises_input_error(
        "folders test tube and train, which look like splits, beside bus.*class_folder to first"
    ):
        open_images(folder, 8)
    for rule in ("first", "last", "path"):
        assert set(class_counts(open_images(folder, 8, class_folder=rule))) == {"train", "bus", "test tube"}
    data = open_images(folder, 8, split="train")
    assert len(data) == 1 and data.notes == ("1 images in bus", "1 images in test tube")


def test_one_of_many_classes_may_look_like_a_split(folder):
    """As in CIFAR-100 and COCO: nobody has so many splits."""
    names = ["train", *(f"class {k}" for k in range(8))]
    fill(folder, *(f"{name}/1.png" for name in names))
    assert set(class_counts(open_images(folder, 8))) == set(names)
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
    assert class_counts(data) == ({} if below is FLAT else {"cat": 2, "dog": 1})
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
        assert len(data) == 3 and class_counts(data) == ({} if below is FLAT else {"cat": 2, "dog": 1})


@pytest.mark.parametrize(
    "name", ["carnival", "contest", "terrain", "strain", "valley", "device", "interval", "tr"]
)
def test_names_that_only_contain_letters_of_a_split(folder, name):
    fill(folder, f"{name}/1.png", "other/1.png")
    assert set(class_counts(open_images(folder, 8))) == {name, "other"}
