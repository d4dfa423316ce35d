"""Layouts of folders as people have them: links, folders of splits, nested classes, and what is left out."""

import pytest

from dit_nb.image_files import open_images
from support import raises_input_error
from support_data import PETS, class_counts, fill

# Links


def test_linked_folders_and_files_are_read(folder, tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", "dog/1.png", "dog/2.png", "x.png")
    fill(folder, "cat/1.png")
    (folder / "dog").symlink_to(elsewhere / "dog")
    (folder / "cat" / "2.png").symlink_to(elsewhere / "x.png")
    assert class_counts(open_images(folder, 8)) == {"cat": 2, "dog": 2}
    (tmp_path / "all links").mkdir()
    (tmp_path / "all links" / "dog").symlink_to(elsewhere / "dog")
    (tmp_path / "link to the folder").symlink_to(tmp_path / "all links")
    assert class_counts(open_images(tmp_path / "link to the folder", 8)) == {"dog": 2}


def test_a_link_that_leads_back_is_noted(folder):
    fill(folder, *PETS)
    (folder / "cat" / "again").symlink_to(folder)
    data = open_images(folder, 8)
    assert class_counts(data) == {"cat": 2, "dog": 1} and "link cat/again" in data.notes[0]


@pytest.mark.parametrize("name", ["dog", "cat/9.png"])
def test_a_link_that_leads_nowhere_is_named(folder, name):
    fill(folder, *PETS[:2])
    (folder / name).symlink_to(folder / "nowhere")
    with raises_input_error(name.replace(".", "[.]")):
        open_images(folder, 8)


# Splits


def test_splits_inside_classes_and_inside_one_folder(folder, tmp_path):
    fill(folder, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png", "dog/test/5.png")
    assert class_counts(open_images(folder, 8)) == {"cat": 1, "dog": 1}
    assert class_counts(open_images(folder, 8, split="test")) == {"cat": 1, "dog": 2}
    fill(tmp_path / "around", "data/Train/cat/1.png", "data/Train/dog/1.png", "data/Valid/cat/2.png")
    assert class_counts(open_images(tmp_path / "around", 8)) == {"cat": 1, "dog": 1}


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


def test_class_folder_does_not_merge_splits(folder):
    fill(folder, *(f"{name}/{file}" for name in ("trainset", "testset") for file in PETS))
    for rule in ("first", "last", "path"):
        data = open_images(folder, 8, class_folder=rule)
        assert class_counts(data) == {"cat": 2, "dog": 1} and data.notes == ("3 images in testset",)
    fill(folder, "extra/cat/1.png")
    for rule in ("first", "last", "path"):
        with raises_input_error("testset and trainset, which look like splits, beside extra"):
            open_images(folder, 8, class_folder=rule)


def test_images_beside_the_folders_of_splits(folder):
    fill(folder, "sheet.png", "train/cat/1.png", "train/dog/1.png", "test/cat/1.png")
    with raises_input_error("sheet.png beside train: choose a folder with split"):
        open_images(folder, 8)
    data = open_images(folder, 8, split="train")
    assert class_counts(data) == {"cat": 1, "dog": 1}
    assert data.notes == ("1 images in test", "1 images beside the folders of splits")


def test_nested_classes_one_of_which_is_a_train(folder):
    fill(folder, "vehicles/train/1.png", "vehicles/plane/1.png", "animals/cat/1.png")
    assert class_counts(open_images(folder, 8, class_folder="first")) == {"vehicles": 2, "animals": 1}
    assert set(class_counts(open_images(folder, 8, class_folder="last"))) == {"train", "plane", "cat"}
    assert len(open_images(folder, 8, split="train")) == 1


# What is left out is noted


def test_folders_of_systems_are_passed_over_and_no_others(folder):
    fill(folder, *PETS, "__background__/1.png", "__MACOSX/1.png", ".cache/1.png")
    assert class_counts(open_images(folder, 8)) == {"cat": 2, "dog": 1, "__background__": 1}


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
    assert class_counts(open_images(folder, 8, class_folder=rule)) == wanted


def test_one_folder_around_all_classes_is_no_class(folder):
    fill(folder, *(f"photos/{name}" for name in PETS))
    assert class_counts(open_images(folder, 8)) == {"cat": 2, "dog": 1}


def test_classes_of_different_depth(folder):
    fill(folder, "cat/1.png", "dog/old/1.png")
    with raises_input_error("class_folder"):
        open_images(folder, 8)
    assert class_counts(open_images(folder, 8, class_folder="first")) == {"cat": 1, "dog": 1}
    with raises_input_error("class_folder is 'middle'"):
        open_images(folder, 8, class_folder="middle")
