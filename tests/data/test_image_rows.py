"""Rows of tables and their images: images without a row, and splits by a column."""

import pytest

from dit_nb.image_files import open_images
from support import raises_input_error
from support_data import class_counts, fill, write_table


def test_images_without_a_row_are_noted(folder):
    write_table(fill(folder, *(f"{k}.png" for k in range(4))), "file_name,label\n0.png,a\n1.png,b\n")
    data = open_images(folder, 8)
    assert class_counts(data) == {"a": 1, "b": 1}
    assert data.notes == ("2 images without a row in metadata.csv, such as 2.png",)


def test_a_column_of_splits_is_used(folder):
    rows = ["0.png,a,train", "1.png,b,Train", "2.png,a,val", "3.png,a,test"]
    write_table(
        fill(folder, *(f"{k}.png" for k in range(5))), "\n".join(["file_name,label,split", *rows, ""])
    )
    data = open_images(folder, 8)
    assert class_counts(data) == {"a": 1, "b": 1} and "split Train" in data.place
    assert {*data.notes[:2]} == {"1 rows of metadata.csv, split test", "1 rows of metadata.csv, split val"}
    assert "1 images without a row in metadata.csv, such as 4.png" in data.notes
    assert class_counts(open_images(folder, 8, split="validation")) == {"a": 1}
    with raises_input_error("no split extra: choose one with split, of Train, test, train, val"):
        open_images(folder, 8, split="extra")


@pytest.mark.parametrize(
    "values,seen", [("01", "0 and 1 for one split"), (["train", "junk"], "train.*beside junk")]
)
def test_a_column_of_splits_that_is_not_clear(folder, values, seen):
    rows = [f"{k}.png,a,{value}" for k, value in enumerate(values)]
    write_table(fill(folder, "0.png", "1.png"), "\n".join(["file_name,label,split", *rows, ""]))
    with raises_input_error(
        f"column split of table .*metadata.csv has the value.*{seen}.*choose one with split"
    ):
        open_images(folder, 8)
    assert len(open_images(folder, 8, split=values[1])) == 1


def test_a_column_that_may_be_one_of_splits(folder):
    fill(folder, "0.png", "1.png")
    write_table(folder, "file_name,label,subset\n0.png,a,train\n1.png,b,test\n")
    assert len(open_images(folder, 8)) == 1
    write_table(folder, "file_name,label,subset\n0.png,a,small\n1.png,b,test\n")
    assert len(open_images(folder, 8)) == 2
    write_table(folder, "file_name,split\n0.png,train\n1.png,test\n")
    assert set(class_counts(open_images(folder, 8, label_column="split"))) == {"train", "test"}


def test_captions_of_a_split_by_a_column(folder):
    write_table(fill(folder, "0.png", "1.png"), "file_name,text,split\n0.png,a cat,train\n1.png,a dog,test\n")
    assert open_images(folder, 8, captions=True).captions == ("a cat",)
    assert open_images(folder, 8, captions=True, split="test").captions == ("a dog",)


def test_one_table_for_folders_of_splits(folder):
    """Its rows of other splits are no missing images."""
    fill(folder, "train/0.png", "test/1.png")
    write_table(folder, "file_name,label,split\ntrain/0.png,a,train\ntest/1.png,b,test\n")
    assert class_counts(open_images(folder, 8)) == {"a": 1} and class_counts(
        open_images(folder, 8, split="test")
    ) == {"b": 1}
    write_table(folder, "file_name,label\ntrain/0.png,a\ntest/1.png,b\nnone.png,a\n")
    with raises_input_error("none.png cannot be read"):
        open_images(folder, 8)
