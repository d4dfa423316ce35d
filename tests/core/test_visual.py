"""Figures show the numbers that they are given, and carry an alternative text."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from dit_nb.patchify import patchify
from dit_nb.visual import (
    COLORS,
    _to_pixels,
    figure,
    plot_classes,
    plot_denoising,
    plot_images,
    plot_loss,
    show_image,
    show_matrix,
    show_source,
)
from support import raises_input_error

GRADIENT = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4)  # six images, each of one brightness


def shown(fig):
    """The first number of each image of a figure, in reading order."""
    return [float(ax.images[0].get_array().flat[0]) for ax in fig.axes if ax.images]


def test_colors_differ():
    assert len(set(COLORS.values())) == len(COLORS)


def test_a_figure_is_not_kept_by_pyplot():
    before = plt.get_fignums()
    fig, axes = figure(2, 3)
    assert axes.shape == (2, 3) and plt.get_fignums() == before


def test_alternative_text_comes_from_labels_or_is_set():
    fig, axes = figure(1, 2)
    fig.suptitle("loss")
    axes[0, 0].set(title="train", xlabel="step", ylabel="nats")
    assert fig.alt_text == "loss. train: nats against step."
    fig.alt_text = "It falls."
    data, metadata = fig._repr_mimebundle_()
    assert data == {"text/plain": "It falls."} and metadata == {"image/png": {"alt": "It falls."}}
    assert figure()[0].alt_text == "Figure."


def test_pixels():
    image = torch.tensor([[[-2.0, -1.0, 0.0, 3.0]]])
    assert _to_pixels(image).tolist() == [[0.0, 0.0, 0.5, 1.0]]
    assert _to_pixels(image.expand(3, 1, 4)).shape == _to_pixels(image.expand(4, 1, 4)).shape == (1, 4, 3)


def test_signed_images_are_centered_at_zero():
    ax = figure()[1][0, 0]
    artist = show_image(ax, torch.full((3, 2, 2), 0.25), signed=True, limit=0.5)
    assert artist.get_clim() == (-0.5, 0.5) and float(artist.get_array().max()) == 0.25
    assert show_matrix(ax, torch.tensor([[1.0, -4.0]]), signed=True).get_clim() == (-4.0, 4.0)


@pytest.mark.parametrize("colorbar,axes", [("weight", 2), (None, 1)])
def test_matrix_and_its_color_bar(colorbar, axes):
    fig, ((ax,),) = figure()
    show_matrix(ax, torch.eye(3).bfloat16(), "eye", "key", "query", colorbar=colorbar)
    assert len(fig.axes) == axes and (ax.get_xlabel(), ax.get_ylabel()) == ("key", "query")
    assert np.array_equal(ax.images[0].get_array(), np.eye(3))


def test_images_stand_in_reading_order():
    fig = plot_images(GRADIENT[:5], [*"abcde"], columns=3, row_titles=["first", "second"], title="five")
    assert shown(fig) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8], abs=1e-6)
    assert [ax.get_title() for ax in fig.axes] == [*"abcde", ""]
    assert [fig.axes[i].get_ylabel() for i in (0, 3)] == ["first", "second"]
    assert fig.alt_text == "five: 5 images in 2 rows: first, second, a, b, c, d, e."
    assert len(plot_images(GRADIENT).axes) == 6 and "6 images in a row" in plot_images(GRADIENT).alt_text


def test_classes_have_a_row_each():
    labels = torch.tensor([1, 0, 1, 0, 1, 0])
    fig = plot_classes(GRADIENT, labels, ("zero", "one"), per_class=2)
    assert shown(fig) == pytest.approx([0.2, 0.6, 0.0, 0.4], abs=1e-6)
    assert "zero, one" in fig.alt_text
    with raises_input_error("per_class.*4.*3.*labels"):
        plot_classes(GRADIENT, labels, ("zero", "one"), per_class=4)


def test_denoising_has_a_row_for_each_image_and_a_column_for_each_step():
    frames = GRADIENT.reshape(3, 2, 1, 4, 4)  # three steps of two images
    fig = plot_denoising(frames, ["t = 2", "t = 1", "t = 0"])
    assert shown(fig) == pytest.approx([0.0, 0.4, 0.8, 0.2, 0.6, 1.0], abs=1e-6)
    assert [ax.get_title() for ax in fig.axes] == ["t = 2", "t = 1", "t = 0", "", "", ""]


@pytest.mark.parametrize("steps,window", [(40, 10), (3, 1)])
def test_loss_and_its_moving_average(steps, window):
    mse = [float(i) for i in range(steps)]
    history = {"loss": [], "mse": mse, "vb": [2 * value + 1 for value in mse]}
    raw, smooth = plot_loss(history, window=50).axes[0].lines
    assert raw.get_ydata().tolist() == [float(i) for i in range(steps)]
    means = [np.mean(range(i - window + 1, i + 1)) for i in range(window - 1, steps)]
    assert smooth.get_ydata() == pytest.approx(means)
    assert smooth.get_xdata().tolist() == list(range(window - 1, steps))
    assert plot_loss(history).axes[1].lines[0].get_ydata().tolist() == history["vb"]


def test_source_of_functions():
    text = show_source(patchify, _to_pixels).data
    assert (
        text.startswith("```python\ndef patchify(") and "\ndef _to_pixels(" in text and text.endswith("\n```")
    )


@pytest.mark.parametrize("images", [torch.full((2, 3, 4, 4), 255.0), torch.ones(2, 3, 4, 4).byte()])
def test_bytes_are_not_shown_as_white_images(images):
    """They would all be clipped to white. A sample that has diverged is shown."""
    for call in (lambda: plot_images(images), lambda: show_image(figure()[1][0, 0], images[0])):
        with raises_input_error(r"images? has values from .* of torch.*, but must be in \[-1, 1\]"):
            call()
    plot_images(torch.linspace(-300, 300, 48).view(1, 3, 4, 4))
    plot_images(images.float(), signed=True, limit=255)
