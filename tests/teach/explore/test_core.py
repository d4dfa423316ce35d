"""All explorers: few controls, three experiments, a reset, a mistake, an alternative text."""

import io
import re

import ipywidgets
import numpy as np
import pytest
from matplotlib.image import imread

from dit_nb.teach.explore.core import Explorer, _all_explorers, _some_values

FACTORIES = _all_explorers()
NAMES = (
    "crop patchify positions timestep attention in_context cross_attention modulate gate model cost noise variance "
    "sampler guidance training budget ranks compute latents frechet attention_maps modulation ablation lens denoising "
    "range ideal_denoiser block few_steps flow plane modern_blocks targets mmdit guidance_today meanflow"
)


# A control that acts on another, which does nothing at its default: a shift of 0 is the same on any channels.
NEEDS = {
    ("shift and scale", "channels"): {"shift": 1.0},
    ("training times and sampling times", "is_double"): {"alpha": 3.0},
}
SLOW = ("explore_guidance",)  # samples at seven scales for each setting
PARAMS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(FACTORIES)]


@pytest.fixture(scope="module", params=PARAMS)
def explorer(request):
    return FACTORIES[request.param]()


def drawn(fig):
    """Everything that a figure shows, as text and numbers."""
    parts = []
    for ax in fig.axes:
        parts += [ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), *(text.get_text() for text in ax.texts)]
        parts += [np.asarray(image.get_array()).tobytes() for image in ax.images]
        parts += [np.asarray(line.get_xydata()).tobytes() for line in ax.lines]
        parts += [str((p.get_extents().bounds, p.get_facecolor())) for p in ax.patches]
        parts += [
            str((np.asarray(c.get_offsets()), c.get_array(), c.get_facecolor())) for c in ax.collections
        ]
        parts += [str([path.vertices for path in c.get_paths()]) for c in ax.collections]
    return parts


def test_every_lesson_has_an_explorer():
    assert {f"explore_{name}" for name in NAMES.split()} == set(FACTORIES)


def test_controls_and_experiments(explorer):
    viewer = "viewer" in explorer.title
    assert 2 <= len(explorer.controls) <= (7 if viewer else 5)
    experiments = re.findall(r"^\d\. \*[^*]+\.\* .+\.$", explorer.experiments.replace("\n   ", " "), re.M)
    assert len(experiments) == 3, explorer.experiments


def test_a_mistake_can_be_shown(explorer):
    """By a red checkbox, or a menu of mistakes; the viewer has none."""
    labels = [getattr(control, "description", "").lower() for control in explorer.controls.values()]
    assert "viewer" in explorer.title or any("mistake" in label for label in labels)


def test_every_control_changes_the_figure(explorer):
    explorer.reset()
    start = drawn(explorer.figure)
    for name, control in explorer.controls.items():
        explorer.set(**NEEDS.get((explorer.title, name), {}))
        before, seen = drawn(explorer.figure), []
        for value in _some_values(control):
            explorer.set(**{name: value})
            assert explorer.error.value == "", (name, value, explorer.error.value)
            seen.append(drawn(explorer.figure))
        assert any(one != before for one in seen), f"{name} changes nothing"
        explorer.reset()
    assert drawn(explorer.figure) == start, "reset restores the defaults"


def test_changing_a_control_redraws(explorer):
    explorer.reset()
    name, control = next(iter(explorer.controls.items()))
    before = explorer.image.value
    control.value = next(v for v in _some_values(control) if v != control.value)
    assert explorer.image.value != before, name
    explorer.reset()
    assert explorer.image.value == before, "the same setting gives the same bytes"


def test_alt_text(explorer):
    assert len(explorer.figure.alt_text) > 40 and explorer.figure._alt_text
    assert f'<img alt="{explorer.figure.alt_text[:20]}'.replace("'", "&#x27;") in explorer.image.value


def test_figure_fits_a_laptop(explorer):
    height, width = imread(io.BytesIO(explorer.png)).shape[:2]
    assert 400 <= width <= 900 and height <= 430


def test_labels_are_readable(explorer):
    for ax in explorer.figure.axes:
        sizes = [
            t.get_fontsize() for t in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts) if t.get_text()
        ]
        assert all(size >= 7 for size in sizes), (ax.get_title(), sizes)


def test_an_error_is_shown(explorer):
    fragile = Explorer(explorer.plot, "x", "", explorer.prepare, **explorer.controls)
    image = fragile.image.value

    def fail(*_, **__):
        raise RuntimeError("no data <left>")

    fragile.plot = fail
    fragile._update()
    assert "RuntimeError: no data &lt;left&gt;" in fragile.error.value and fragile.image.value == image
    fragile.widget.close()


def test_widget_and_image_in_one_output(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr("dit_nb.teach.explore.core.display", lambda *a, **k: shown.append((a, k)))
    explorer.reset()._ipython_display_()
    (_, _), ((bundle,), options) = shown
    assert {"image/png", "text/plain"} <= set(bundle) and options["raw"]
    assert options["metadata"]["image/png"]["alt"] == bundle["text/plain"] == explorer.figure.alt_text
    assert isinstance(explorer.widget, ipywidgets.Widget)
