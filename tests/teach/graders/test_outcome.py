"""Outcomes of one case: odd results are named, and never raise an error in the grader."""

import json
import sys

import pytest
import torch

from answers import RIGHT
from dit_nb.teach.graders.attention import check_attention
from dit_nb.teach.graders.patchify import check_patchify

patchify = RIGHT["patchify"][0]


def test_nan_is_named():
    report = check_patchify(lambda images, patch_size: patchify(images, patch_size) / 0)
    assert "nan or infinite" in report.reason
    json.dumps(report.row(), allow_nan=False)


def test_float32_is_named():
    def single(q, k, v):
        return RIGHT["attention"][0](q, k, v).float()

    assert "work in the type of the input, not in torch.float32" in check_attention(single).reason


def returns(value):
    return lambda images, patch_size: value(patchify(images, patch_size))


class Liar(torch.Tensor):
    """A tensor that overrides every operation."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return torch.zeros(())


async def asynchronous(images, patch_size):
    return patchify(images, patch_size)


def later(images, patch_size):
    yield patchify(images, patch_size)


def itself(images, patch_size):
    return itself(images, patch_size)


class Rude(BaseException):
    def __str__(self):
        raise ValueError


def rude(images, patch_size):
    raise Rude


ODD = {
    "its input": (lambda images, patch_size: images, "has shape (2, 3, 8, 8)"),
    "NumPy": (returns(lambda x: x.numpy()), "a NumPy array"),
    "lists": (returns(lambda x: x.tolist()), "a list of 2 things (list)"),
    "a comma": (returns(lambda x: (x,)), "a comma too many"),
    "a float": (returns(lambda x: 1.0), "returns a float"),
    "half": (returns(lambda x: x.half()), "is torch.float16, but must be torch.float64"),
    "nothing": (returns(lambda x: None), "is a return missing?"),
    "nan": (returns(lambda x: x * float("nan")), "nan or infinite"),
    "a subclass": (returns(lambda x: torch.zeros_like(x).as_subclass(Liar)), "wrong numbers"),
    "nested": (returns(lambda x: torch.nested.nested_tensor([x[0]])), "cannot be compared"),
    "quantized": (
        returns(lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)),
        "must return",
    ),
    "async": (asynchronous, "async def"),
    "yield": (later, "is there a yield"),
    "recursion": (itself, "stopped with RecursionError"),
    "exit": (lambda images, patch_size: sys.exit(0), "stopped with SystemExit"),
    "no message": (rude, "stopped with Rude"),
    "a GPU": (lambda images, patch_size: patchify(images.to("cuda:77"), patch_size), "stopped with"),
    "a class": (dict, "stopped with TypeError"),
    "keywords": (lambda *, images, patch_size: images, "but must take (images, patch_size)"),
    "its result": (torch.zeros(3, 3), "no function"),
    "its name": ("patchify", "no function"),
}


@pytest.mark.parametrize("fn, words", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore")
def test_odd_answers_are_named(fn, words):
    report = check_patchify(fn)
    assert not report and words in report.reason, str(report)
    assert "\n" not in str(report) and json.dumps(report.row(), allow_nan=False)
    assert check_patchify(patchify)


@pytest.mark.parametrize(
    "odd",
    [
        lambda images, patch_size: patchify(images, patch_size).to_sparse(),
        lambda images, patch_size: patchify(images, patch_size).to("meta"),
        lambda images, patch_size: patchify(images, patch_size).to(torch.complex64),
        lambda images, patch_size: patchify(images, patch_size) > 0,
        lambda images, patch_size: [],
        lambda images, patch_size: torch.empty(0),
        lambda images, patch_size: "tokens",
        lambda images, patch_size: images @ patch_size,
    ],
)
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_odd_results_are_reported(odd):
    report = check_patchify(odd)
    assert not report and json.dumps(report.row(), allow_nan=False) and report._repr_markdown_()
