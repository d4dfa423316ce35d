"""The denoising theatre: what is on the stage is what the model computed."""

import numpy as np
import pytest
import torch

from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier, raw_pixels
from dit_nb.pretrained import digit_model, sample_images
from dit_nb.teach.explore.denoising import explore_denoising, plot_theatre, record_run

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
BAR = (1 - BETAS).cumprod(0)


@pytest.fixture(scope="module")
def theatre():
    return explore_denoising()


@pytest.fixture(scope="module")
def judge():
    return DigitClassifier(digits())


def run(**changes):
    model, sampling = digit_model()
    choices = {"digit": 3, "seed": 0, "steps": 10, "sampler": "ddpm", "guidance": 1.5, "variance": "learned"}
    return record_run(model, sampling, **{**choices, **changes})


def shown(explorer):
    """The four pictures: every second artist of the coloured ones is their strip."""
    images = explorer.figure.axes[0].images
    return [np.asarray(images[i].get_array(), dtype=float) for i in (0, 1, 2, 4)]


def test_the_run_is_the_sampler_s_run():
    model, sampling = digit_model()
    for sampler in ("ddpm", "ddim"):
        alone = sample_images(
            model, sampling, torch.tensor([7]), 1, 5, 4.0, sampler=sampler, steps="10", progress=False
        )
        assert torch.equal(run(digit=7, seed=5, guidance=4.0, sampler=sampler).final, alone[0].cpu())


def test_kept_numbers_against_formulas_written_anew():
    frames = run(guidance=1.0)
    model, _ = digit_model()
    with torch.no_grad():
        output = model(frames.x_t, frames.t, torch.full((10,), 3))
    assert (
        frames.t.tolist() == sorted(frames.t.tolist(), reverse=True)
        and frames.t[0] == 999
        and frames.t[-1] == 0
    )
    torch.testing.assert_close(frames.eps, output[:, :1], rtol=0, atol=1e-5)
    # Where both variances are nearly one, the place between them is known to three digits only.
    torch.testing.assert_close(frames.fraction, (output[:, 1:] + 1) / 2, rtol=0, atol=5e-3)
    bar = BAR[frames.t].view(-1, 1, 1, 1)
    bet = ((frames.x_t - (1 - bar).sqrt() * frames.eps) / bar.sqrt()).clamp(-1, 1)
    torch.testing.assert_close(frames.x0.double(), bet, rtol=0, atol=2e-3)


def test_bits_are_the_divergence_from_where_the_chain_ends():
    frames = run(variance="fixed_large")
    i = 4  # a step in the middle
    bar, prev = BAR[frames.t[i]], BAR[frames.t[i + 1]]
    beta = 1 - bar / prev
    small = beta * (1 - prev) / (1 - bar)
    normal = torch.distributions.Normal

    def step_back(x0):
        mean = prev.sqrt() * beta / (1 - bar) * x0
        return mean + (1 - beta).sqrt() * (1 - prev) / (1 - bar) * frames.x_t[i].double()

    levels = torch.linspace(-1, 1, 17, dtype=torch.float64)
    end = levels[(frames.final.double()[..., None] - levels).abs().argmin(-1)]
    true, told = normal(step_back(end), small.sqrt()), normal(step_back(frames.x0[i].double()), beta.sqrt())
    bits = torch.distributions.kl_divergence(true, told).mean() / np.log(2)
    assert frames.bits[i].item() == pytest.approx(bits.item(), rel=1e-3)


def test_fixed_variances_are_the_ends_of_the_scale():
    assert run(variance="fixed_small").fraction.abs().max() < 1e-4
    assert (run(variance="fixed_large").fraction - 1).abs().max() < 1e-4


def test_scrubbing_shows_the_frame_and_marks_its_step(theatre):
    theatre.reset().set(steps=10)
    frames = run()
    for through, i in ((0, 0), (44, 4), (100, 9)):
        theatre.controls["through"].value = through
        for drawn, kept in zip(shown(theatre), (frames.x_t, frames.x0, frames.eps, frames.fraction)):
            np.testing.assert_allclose(drawn, kept[i, 0], atol=1e-6)
        curve, dot = theatre.figure.axes[1].lines
        assert dot.get_xdata()[0] == frames.t[i] == curve.get_xdata()[i]
        assert f"t = {frames.t[i]}" in theatre.figure.axes[0].texts[0].get_text()
        assert f"{frames.bits[i]:.2g} bits" in theatre.figure.axes[1].get_title()


def test_a_run_is_computed_once_and_scrubbed_for_nothing(theatre):
    theatre.reset()
    before = len(theatre.prepared)
    theatre.set(through=10).set(through=90)
    assert len(theatre.prepared) == before
    theatre.set(seed=9)
    assert len(theatre.prepared) == before + 1 and theatre.bar.layout.display == "none"


def test_first_experiment_the_bet_comes_early(judge):
    frames = run(steps=50)
    assert judge.namer.predict(raw_pixels(frames.x0[10:11]))[0] == 3
    assert (frames.x0[44] - frames.final).square().mean().sqrt() > 0.1


def test_second_experiment_guidance(theatre, judge):
    bets = {}
    for scale in (0.0, 1.0, 6.0):
        theatre.reset().set(guidance=scale)
        bets[scale] = torch.tensor(shown(theatre)[1])[None, None].float()
    assert judge.namer.predict(raw_pixels(bets[0.0]))[0] != 3
    assert judge.namer.predict(raw_pixels(bets[1.0]))[0] == judge.namer.predict(raw_pixels(bets[6.0]))[0] == 3
    extreme = {scale: (bet.abs() > 0.95).float().mean() for scale, bet in bets.items()}
    assert extreme[6.0] > 1.5 * extreme[1.0]


def test_third_experiment_ddim_keeps_its_digit():
    apart = {}
    for sampler in ("ddpm", "ddim"):
        few, many = run(sampler=sampler, steps=10).final, run(sampler=sampler, steps=100).final
        apart[sampler] = (few - many).square().mean().sqrt()
    assert apart["ddim"] < 0.6 * apart["ddpm"]


def test_no_label_is_the_null_class(theatre):
    theatre.reset().set(digit=10, guidance=1.0, steps=10)
    np.testing.assert_allclose(shown(theatre)[1], run(digit=10, guidance=1.0).x0[5, 0], atol=1e-6)
    assert not np.allclose(run(digit=10, guidance=1.0).x0[5, 0], run(guidance=1.0).x0[5, 0])


def test_words_tell_the_moment():
    assert "Step 1 of 10, t = 999" in plot_theatre(run(), through=0).alt
