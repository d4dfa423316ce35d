"""What images are read from: data sets of the Hub, folders without images, and folders that hold something else."""

import datasets
import pytest
import torch

from dit_nb.batches import BatchReader
from dit_nb.image_files import open_images
from support import raises_input_error
from support_data import as_parquet, encoded


@pytest.mark.parametrize("image,label", [("image", "label"), ("img", "fine_label")])
def test_hub(tmp_path, image, label):
    kinds = {
        "id": datasets.Value("int64"),
        image: datasets.Image(),
        label: datasets.ClassLabel(names=["tabby", "lynx", "never"]),
    }
    name = as_parquet(
        tmp_path / "cats", {"id": [5, 6], image: [encoded(0), encoded(255)], label: [1, 0]}, kinds
    )
    data = open_images(name, 8, channels=1)
    assert data.class_names == ("tabby", "lynx", "never"), "as declared, whether they occur or not"
    x, labels = BatchReader(data)([0, 1])
    assert labels.tolist() == [1, 0] and torch.equal(x.mean((1, 2, 3)), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    "values,names,ids", [(["b", "a", "b"], ("a", "b"), [1, 0, 1]), ([7, 11, 7], ("7", "11"), [0, 1, 0])]
)
def test_hub_with_plain_labels(tmp_path, values, names, ids):
    kind = datasets.Value("string" if isinstance(values[0], str) else "int64")
    columns = {"image": [encoded(k) for k in range(3)], "label": values}
    data = open_images(as_parquet(tmp_path / "x", columns, {"image": datasets.Image(), "label": kind}), 8)
    assert data.class_names == names and data.labels.tolist() == ids


def test_hub_splits(tmp_path):
    kinds = {"image": datasets.Image()}
    name = as_parquet(tmp_path / "x", {"image": [encoded(1)] * 3}, kinds)
    as_parquet(tmp_path / "x", {"image": [encoded(2)] * 2}, kinds, split="test")
    assert [len(open_images(name + at, 8)) for at in ("", "@test", "@train[:2]")] == [3, 2, 2]
    with pytest.raises(ValueError, match="hub:.*@nonsense.*nonsense"):
        open_images(name + "@nonsense", 8)
    only = as_parquet(tmp_path / "y", {"image": [encoded(2)] * 4}, kinds, split="test")
    assert len(open_images(only, 8)) == 4
    as_parquet(tmp_path / "y", {"image": [encoded(2)] * 4}, kinds, split="validation")
    with pytest.raises(ValueError, match="train.*(test, validation|validation, test)"):
        open_images(only, 8)


def test_hub_configurations(tmp_path):
    root = tmp_path / "x"
    for config in ("small", "large"):
        as_parquet(root, {"image": [encoded(1)] * len(config)}, {"image": datasets.Image()}, split=config)
    parts = "".join(f"- config_name: {c}\n  data_files: {c}-00000.parquet\n" for c in ("small", "large"))
    (root / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    assert len(open_images(f"hub:{root}:large", 8)) == 5
    assert len(open_images(f"hub:{root}:small@train[:50%]", 8)) in (2, 3)
    with pytest.raises(ValueError, match="hub:.*(large|small)"):
        open_images(f"hub:{root}", 8)


def test_hub_without_images_or_labels(tmp_path):
    with pytest.raises(ValueError, match="column.*text"):
        open_images(as_parquet(tmp_path / "x", {"text": ["a"]}, {"text": datasets.Value("string")}), 8)
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])}
    name = as_parquet(tmp_path / "y", {"image": [encoded(1)], "label": [-1]}, kinds)
    with pytest.raises(ValueError, match="column label"):
        open_images(name, 8)


def test_hub_out_of_reach():
    with pytest.raises(ValueError, match="data hub:nobody/nothing") as caught:
        open_images("hub:nobody/nothing", 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "suffix,cure", [(".npy", "PNG"), (".zip", "unpack"), (".tar", "stream:"), (".parquet", "hub:")]
)
def test_folders_that_hold_something_else(folder, suffix, cure):
    for k in range(2):
        (folder / f"{k}{suffix}").write_bytes(b"x")
    with raises_input_error(f"holds no images, but 2 {suffix} files: .*{cure}"):
        open_images(folder, 8)
