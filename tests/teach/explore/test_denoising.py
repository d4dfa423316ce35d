"""The denoising viewer, against the sampler and formulas written again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier, _raw_pixels
from dit_nb.pretrained import digit_model, emoji_model, sample_images
from dit_nb.teach.explore.denoising import _record_run, explore_denoising, plot_denoising

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
BAR = (1 - BETAS).cumprod(0)


@pytest.fixture(scope="module")
def viewer():
    return explore_denoising()


@pytest.fixture(scope="module")
def classifier():
    return DigitClassifier(digits())


def run(**changes):
    model, sampling = digit_model()
    choices = {"digit": 3, "seed": 0, "steps": 10, "sampler": "ddpm", "guidance": 1.5, "variance": "learned"}
    return _record_run(model, sampling, **{**choices, **changes})


def shown(explorer):
    """The four images; color bars lie between them."""
    images = explorer.figure.axes[0].images
    return [np.asarray(images[i].get_array(), dtype=float) for i in (0, 1, 2, 4)]


def test_run_equals_sample_images():
    model, sampling = digit_model()
    for sampler in ("ddpm", "ddim"):
        settings = replace(sampling, sampler=sampler, steps=10, cfg_scale=4.0)
        alone = sample_images(model, settings, [7], seed=5, progress=False)
        assert torch.equal(run(digit=7, seed=5, guidance=4.0, sampler=sampler).final, alone[0].cpu())


def test_recorded_values_against_formulas():
    recorded = run(guidance=1.0)
    model, _ = digit_model()
    with torch.no_grad():
        output = model(recorded.x_t, recorded.t, torch.full((10,), 3))
    assert (
        recorded.t.tolist() == sorted(recorded.t.tolist(), reverse=True)
        and recorded.t[0] == 999
        and recorded.t[-1] == 0
    )
    torch.testing.assert_close(recorded.eps, output[:, :1], rtol=0, atol=1e-5)
    # Where both variances are nearly one, the fraction is known to three digits only.
    torch.testing.assert_close(recorded.fraction, (output[:, 1:] + 1) / 2, rtol=0, atol=5e-3)
    bar = BAR[recorded.t].view(-1, 1, 1, 1)
    predicted = ((recorded.x_t - (1 - bar).sqrt() * recorded.eps) / bar.sqrt()).clamp(-1, 1)
    torch.testing.assert_close(recorded.x0.double(), predicted, rtol=0, atol=2e-3)


def test_bits_are_the_divergence_for_the_final_image():
    recorded = run(variance="fixed_large")
    i = 4  # a step in the middle
    bar, prev = BAR[recorded.t[i]], BAR[recorded.t[i + 1]]
    beta = 1 - bar / prev
    small = beta * (1 - prev) / (1 - bar)
    normal = torch.distributions.Normal

    def step_back(x0):
        mean = prev.sqrt() * beta / (1 - bar) * x0
        return mean + (1 - beta).sqrt() * (1 - prev) / (1 - bar) * recorded.x_t[i].double()

    levels = torch.linspace(-1, 1, 17, dtype=torch.float64)
    end = levels[(recorded.final.double()[..., None] - levels).abs().argmin(-1)]
    true, model = (
        normal(step_back(end), small.sqrt()),
        normal(step_back(recorded.x0[i].double()), beta.sqrt()),
    )
    bits = torch.distributions.kl_divergence(true, model).mean() / np.log(2)
    assert recorded.bits[i].item() == pytest.approx(bits.item(), rel=1e-3)


def test_fixed_variances_are_0_and_1():
    assert run(variance="fixed_small").fraction.abs().max() < 1e-4
    assert (run(variance="fixed_large").fraction - 1).abs().max() < 1e-4


def test_position_selects_the_step(viewer):
    viewer.reset().set(steps=10)
    recorded = run()
    for percent, i in ((0, 0), (44, 4), (100, 9)):
        viewer.controls["percent"].value = percent
        for drawn, kept in zip(shown(viewer), (recorded.x_t, recorded.x0, recorded.eps, recorded.fraction)):
            np.testing.assert_allclose(drawn, kept[i, 0], atol=1e-6)
        curve, dot = viewer.figure.axes[1].lines
        assert dot.get_xdata()[0] == recorded.t[i] == curve.get_xdata()[i]
        assert f"t = {recorded.t[i]}" in viewer.figure.axes[0].texts[0].get_text()
        assert f"{recorded.bits[i]:.2g} bits" in viewer.figure.axes[1].get_title()


def test_a_run_is_computed_once(viewer):
    viewer.reset()
    before = len(viewer._cache)
    viewer.set(percent=10).set(percent=90)
    assert len(viewer._cache) == before
    viewer.set(seed=9)
    assert len(viewer._cache) == before + 1 and viewer._progress_bar.layout.display == "none"


def test_first_experiment_the_digit_appears_early(classifier):
    recorded = run(steps=50)
    assert classifier.svm.predict(_raw_pixels(recorded.x0[10:11]))[0] == 3
    assert (recorded.x0[44] - recorded.final).square().mean().sqrt() > 0.1


def test_second_experiment_guidance(viewer, classifier):
    predictions = {}
    for scale in (0.0, 1.0, 6.0):
        viewer.reset().set(guidance=scale)
        predictions[scale] = torch.tensor(shown(viewer)[1])[None, None].float()
    assert classifier.svm.predict(_raw_pixels(predictions[0.0]))[0] != 3
    assert (
        classifier.svm.predict(_raw_pixels(predictions[1.0]))[0]
        == classifier.svm.predict(_raw_pixels(predictions[6.0]))[0]
        == 3
    )
    extreme = {scale: (predicted.abs() > 0.95).float().mean() for scale, predicted in predictions.items()}
    assert extreme[6.0] > 1.5 * extreme[1.0]


def test_third_experiment_ddim_keeps_its_digit():
    apart = {}
    for sampler in ("ddpm", "ddim"):
        few, many = run(sampler=sampler, steps=10).final, run(sampler=sampler, steps=100).final
        apart[sampler] = (few - many).square().mean().sqrt()
    assert apart["ddim"] < 0.6 * apart["ddpm"]


def test_no_label_is_the_null_class(viewer):
    viewer.reset().set(digit=10, guidance=1.0, steps=10)
    np.testing.assert_allclose(shown(viewer)[1], run(digit=10, guidance=1.0).x0[5, 0], atol=1e-6)
    assert not np.allclose(run(digit=10, guidance=1.0).x0[5, 0], run(guidance=1.0).x0[5, 0])


def test_alt_text_has_the_step():
    assert "Step 1 of 10, t = 999" in plot_denoising(run(), percent=0).alt_text


def test_a_picture_in_color():
    model, sampling = emoji_model("cpu")
    recorded = _record_run(model, sampling, 1, 0, 4, "ddim", 2.0, "learned")
    assert recorded.x_t.shape == (4, 3, 32, 32) and recorded.final.shape == (3, 32, 32)
    drawn = plot_denoising(recorded, percent=100).axes[0].images
    pixels = (recorded.x_t[3].clamp(-1, 1).permute(1, 2, 0) + 1) / 2
    assert np.allclose(np.asarray(drawn[0].get_array()), pixels, atol=1e-6)
    assert np.allclose(np.asarray(drawn[2].get_array()), recorded.eps[3].mean(0), atol=1e-6)
