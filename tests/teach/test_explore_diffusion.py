"""The explorers of diffusion: what they draw, what their mistakes look like, and whether their experiments tell the truth."""

import math

import numpy as np
import pytest
import torch

from dit_nb.data import digits
from dit_nb.guidance import Guided
from dit_nb.objective import learned_log_variance
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample, ddpm_step
from dit_nb.teach.explore.core import settings
from dit_nb.teach.explore.guidance import SCALES, explore_guidance
from dit_nb.teach.explore.objective import explore_variance, trained_answers
from dit_nb.teach.explore.sampling import BUGS, explore_sampler
from dit_nb.teach.explore.schedule import explore_noise
from dit_nb.visual import COLORS

noise, variance, sampler = explore_noise(), explore_variance(), explore_sampler()


@pytest.fixture(scope="module")
def guidance():
    return explore_guidance()


def abar(name="linear"):
    """Signal power by numpy alone: the schedules' own formulas, written a second time."""
    if name == "linear":
        return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    angle = (np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2
    share = np.cos(angle) ** 2
    return np.cumprod(1 - np.minimum(1 - share[1:] / share[:-1], 0.999))


def at(explorer, **values):
    """The axes that are drawn for some settings, the others at their defaults."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.problem.value == "" and explorer.figure.words
    return figure.axes


def dot(axes):
    """Signal and noise weight that are marked on the circle."""
    return np.array([float(v[0]) for v in axes[1].lines[-1].get_data()])


# noise


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("t", [0, 150, 258, 999])
def test_noise_weights(t, schedule):
    bar = abar(schedule)[t]
    axes = at(noise, t=t, schedule=schedule)
    assert np.allclose(dot(axes), [bar**0.5, (1 - bar) ** 0.5], atol=1e-6)
    assert np.allclose(axes[2].lines[0].get_ydata(), abar(schedule) ** 0.5, atol=1e-6)
    assert np.allclose(axes[2].lines[2].get_ydata(), (1 - abar(schedule)) ** 0.5, atol=1e-6)


def test_noise_by_hand_on_the_slider():
    noise.reset().controls["t"].value = 700
    bar = abar()[700]
    assert np.allclose(dot(noise.figure.axes), [bar**0.5, (1 - bar) ** 0.5], atol=1e-6)
    assert noise.figure.axes[0].get_title() == "t = 700"


def test_noise_pictures_are_the_jump():
    def small(t):  # one number for each pixel of the digit, before it is squeezed into 0..1
        return (np.asarray(at(noise, t=t)[0].images[0].get_array())[106:196:12, 6::12, 0] - 0.5) * 3

    clean, noisy, (a, b) = small(0), small(258), (abar()[258] ** 0.5, (1 - abar()[258]) ** 0.5)
    pure = small(999)
    inside = (abs(noisy) < 1.45) & (abs(pure) < 1.45)
    assert inside.sum() > 20
    assert (
        np.abs(noisy - a * clean - b * pure)[inside].max() < 0.05
    )  # t = 0 and 999 are nearly clean and nearly pure


def test_noise_without_roots_cuts_the_corner():
    axes = at(noise, no_roots=True)
    assert np.allclose(dot(axes), [0.5, 0.5], atol=1e-3) and "must be 1" in axes[1].get_title()
    assert axes[1].lines[1].get_color() == COLORS["wrong"]
    xs, ys = axes[1].lines[1].get_data()
    assert np.allclose(np.add(xs, ys), 1) and np.hypot(*dot(at(noise))) == pytest.approx(1, abs=1e-6)


def test_noise_old_betas_stop_half_way():
    kept, end = [round(i * 999 / 49) for i in range(50)], {}
    for old in (False, True):
        axes = at(noise, steps=50, old_betas=old)
        assert np.allclose(axes[2].lines[0].get_xdata(), kept, atol=1)
        end[old] = axes[2].lines[0].get_ydata()[-1]
    betas = np.linspace(1e-4, 0.02, 1000)[[int(k) for k in axes[2].lines[0].get_xdata()]]
    assert end[True] == pytest.approx(np.prod(1 - betas) ** 0.5, abs=1e-6) and end[True] > 0.75
    assert end[False] == pytest.approx(abar()[-1] ** 0.5, abs=1e-6)
    assert "ends with" in axes[2].get_title() and "are right" in at(noise, old_betas=True)[2].get_title()


def test_noise_experiments():
    assert dot(at(noise, t=258))[0] == pytest.approx(dot(at(noise, t=258))[1], abs=2e-3)
    low = dot(at(noise, t=258, schedule="cosine"))
    assert low[1] < 0.5 < low[0] and abs(np.diff(dot(at(noise, t=495, schedule="cosine")))) < 2e-3
    pictures = [np.asarray(at(noise, t=t)[0].images[0].get_array()) for t in (0, 400)]
    halves = [
        np.corrcoef(*(blur(p[part]).ravel() for p in pictures))[0, 1]
        for part in (slice(0, 96), slice(100, 196))
    ]
    assert halves[0] > halves[1] + 0.2  # seen from afar, the flower survives where the digit does not


def blur(picture, k=12):
    """Means over squares of 12 pixels: what an eye at some distance sees."""
    h, w, c = picture.shape
    return picture.reshape(h // k, k, w // k, k, c).mean((1, 3, 4))


def test_noise_takes_a_schedule_of_ones_own():
    mine = explore_noise(schedules={"mine": lambda n: torch.full((n,), 0.01).double()})
    assert dot(at(mine, t=99))[0] == pytest.approx(0.99**50, abs=1e-6)


# variance


def kl_bits(mean, spread):
    """KL from N(0, 1) to N(mean, spread^2), in bits."""
    return (math.log(spread) + (1 + mean**2) / 2 / spread**2 - 0.5) / math.log(2)


def step(t, steps):
    """True standard deviation, gap of the logs, and factor from eps to mean, by numpy; t must be kept."""
    bar = abar()
    kept = {1000: list(range(1000)), 10: [111 * i for i in range(10)]}[steps]
    now, before = bar[t], bar[kept[kept.index(t) - 1]]
    beta = 1 - now / before
    small = beta * (1 - before) / (1 - now)
    return small**0.5, math.log(beta / small), beta / ((1 - now) ** 0.5 * (1 - beta) ** 0.5)


@pytest.mark.parametrize("t, steps", [(1, 1000), (20, 1000), (500, 1000), (555, 10)])
@pytest.mark.parametrize("v, error", [(-1.0, 0.5), (0.0, -1.0), (1.5, 0.0)])
def test_variance_draws_the_kl(t, steps, v, error):
    sd, gap, factor = step(t, steps)
    axes = at(variance, t=t, steps=steps, v=v, error=error)
    mean, spread = factor * error / sd, math.exp((v + 1) / 4 * gap)
    bits = float(axes[0].get_title().split(": ")[1].removesuffix(" bits"))
    assert bits == pytest.approx(kl_bits(mean, spread), rel=6e-3, abs=1e-12)
    x, y = axes[0].lines[1].get_data()
    assert np.allclose(y, np.exp(-(((x - mean) / spread) ** 2) / 2) / spread / (2 * np.pi) ** 0.5, atol=1e-6)
    row, column = round((v + 1.5) / 3 * 60), round((error + 1.2) / 2.4 * 80)
    shade = float(axes[1].images[0].get_array()[row, column])
    near = kl_bits(factor * (column / 80 * 2.4 - 1.2) / sd, math.exp((row / 60 * 3 - 0.5) / 4 * gap))
    assert shade == pytest.approx(max(math.log10(max(near, 1e-30)), -9), abs=1e-4)


def pulls(axes):
    """The numbers of the title: how the bound pulls eps, and v."""
    words = axes[1].get_title().split(" by ")
    return float(words[1].split(",")[0]), float(words[2])


def test_variance_valley_and_pull():
    sd, _, factor = step(1, 1000)
    axes = at(variance)
    error, v = axes[1].lines[0].get_data()
    best = 2 * np.log(1 + (factor * error / sd) ** 2) / step(1, 1000)[1] - 1
    assert np.nanmax(np.abs(v - best)) < 0.06 and np.isfinite(v).sum() > 60
    tip = axes[1].texts[-1].xy  # the arrow's head
    assert tip[0] == pytest.approx(0.6) and tip[1] > -0.7 and pulls(axes)[0] == 0 < pulls(axes)[1]


def test_variance_without_detach_pulls_the_noise():
    found = {leak: pulls(at(variance, leak=leak)) for leak in (False, True)}
    assert found[False][0] == 0 and found[True][0] < -0.5 and found[True][1] == found[False][1]
    sd, gap, factor = step(1, 1000)
    slope = (factor / sd) ** 2 * 0.6 / math.exp(0.1 * gap) / math.log(2)
    assert found[True][0] == pytest.approx(-slope, rel=0.02)
    axes = at(variance, leak=True)
    assert axes[1].texts[-1].xy[0] < 0.2 and axes[1].title.get_color() == COLORS["wrong"]


def test_variance_experiments():
    first = abs(pulls(at(variance))[1])
    assert abs(pulls(at(variance, v=-0.1))[1]) < 0.2 * first  # in the valley
    error, v = trained_answers()[1]
    sd, gap, factor = step(1, 1000)
    assert abs(2 * math.log(1 + (factor * error / sd) ** 2) / gap - 1 - v) < 0.2  # and so is the digit model
    axes = at(variance, t=20, steps=50)
    star = [float(a[0]) for a in axes[1].lines[-1].get_data()]
    e, best = axes[1].lines[0].get_data()
    assert star[1] < best[np.abs(e - star[0]).argmin()] - 0.5  # far below the valley of 50 steps
    ratio = pulls(at(variance, leak=True))[0] / pulls(at(variance, leak=True, t=100))[0]
    assert 30 < ratio < 60


def test_variance_takes_ones_own_function():
    swapped = explore_variance(lambda values, low, high: learned_log_variance(values, high, low))
    ours, theirs = (at(e, v=-1.0, error=0.0)[0].get_title() for e in (variance, swapped))
    assert float(ours.split()[3]) < 1e-6 < 0.01 < float(theirs.split()[3])


# the sampler


def spread_of(axes):
    """The standard deviation in the title, and that of the drawn histogram."""
    counts, edges, _ = axes[1].patches[-1].get_data()
    middle = (edges[1:] + edges[:-1]) / 2
    mean = (counts * middle).sum() / counts.sum()
    drawn = math.sqrt((counts * (middle - mean) ** 2).sum() / counts.sum())
    return float(axes[1].get_title().split()[1].rstrip(",")), drawn


@pytest.mark.parametrize(
    "steps, small, large", [(1000, 0.297, 0.302), (250, 0.287, 0.304), (50, 0.251, 0.322), (10, 0.163, 0.441)]
)
def test_sampler_recorded_spreads(steps, small, large):
    for name, wanted in (("fixed_small", small), ("fixed_large", large), ("learned", 0.29983)):
        told, drawn = spread_of(at(sampler, steps=steps, variance=name))
        assert told == pytest.approx(wanted, abs=2e-3) and drawn == pytest.approx(wanted, rel=0.04)


def test_sampler_walkers_are_a_real_chain():
    axes = at(sampler, steps=1000, variance="learned")
    x, y = axes[0].lines[0].get_data()
    paths = y.reshape(30, -1)[:, :-1]
    assert x[0] == 999 and paths.shape == (30, 51) and np.isfinite(paths).all()
    assert abs(paths[:, 0].std() - 1) < 0.35 and abs(paths[:, -1].mean() - 0.5) < 0.2


@pytest.mark.parametrize("bug, broad", zip(BUGS[1:4], (0.0034, 1.0035, 0.0540)))
def test_sampler_bugs_have_fingerprints(bug, broad):
    axes = at(sampler, steps=50, bug=bug)
    assert spread_of(axes)[0] == pytest.approx(broad, rel=0.02) and bug in axes[0].get_title()
    assert axes[0].lines[0].get_color() == COLORS["wrong"]
    assert spread_of(at(sampler, steps=50, bug=bug, s=0.0))[0] < 1e-4  # the point mass does not notice


def test_sampler_noise_at_the_end_shows_for_a_point_only():
    told = {}
    for s in (0.0, 0.3):
        for bug in ("none", BUGS[4]):
            told[s, bug] = spread_of(at(sampler, steps=1000, variance="fixed_large", s=s, bug=bug))[0]
    assert told[0.0, "none"] == 0 and told[0.0, BUGS[4]] == pytest.approx(0.01, abs=1e-4)
    assert abs(told[0.3, BUGS[4]] - told[0.3, "none"]) < 5e-4


def test_sampler_experiments():
    narrow, wide, right = (
        spread_of(at(sampler, variance=v))[0] for v in ("fixed_small", "fixed_large", "learned")
    )
    assert narrow < 0.2 and wide > 0.4 and right == pytest.approx(0.3, abs=1e-3)
    axes = at(sampler, sampler="DDIM")
    paths = axes[0].lines[0].get_ydata().reshape(30, -1)[:, :-1]
    assert (np.diff(paths[paths[:, 0].argsort()], axis=0) >= 0).all() and spread_of(axes)[
        0
    ] < 0.2  # no crossing
    assert spread_of(at(sampler, sampler="DDIM", steps=250))[0] == pytest.approx(0.294, abs=3e-3)


def test_sampler_takes_ones_own_step():
    def half(diffusion, prediction, x_t, t, noise):
        return ddpm_step(diffusion, prediction, x_t, t, noise / 2)

    def bent(diffusion, prediction, x_t, t, noise):
        return ddpm_step(diffusion, prediction, x_t, t, noise).clamp(-0.1, 0.1)

    mine = explore_sampler({"half": half, "bent": bent})
    assert spread_of(at(mine))[0] < spread_of(at(sampler))[0]
    mine.set(sampler="bent")
    assert "not a straight line" in mine.problem.value and "half" in mine.figure.axes[0].get_title()


# guidance


def tiles(ax):
    """The sixteen samples in a panel, and which have a red frame."""
    grid = (
        np.asarray(ax.images[0].get_array())
        .reshape(4, 10, 4, 10, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(16, 10, 10, 3)
    )
    return torch.from_numpy(grid[:, 1:9, 1:9, 0] * 2 - 1).float(), grid[:, 0, 0, 1] < 0.9


def sample(w, label, null=10):
    """Guided samples by the library's own wrapper."""
    model, process = digit_model()
    start = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    guided, labels = Guided(model, w, null_class=null), torch.full((16,), label)
    options = dict(x_T=start, clip_x0=True, progress=False)
    return ddim_sample(make_diffusion(process).respaced("ddim20"), guided, start.shape, labels, **options)[
        :, 0
    ]


def reads(images):
    """The label of the nearest training digit."""
    train = digits().train
    return train.labels[torch.cdist(images.flatten(1), train.images.flatten(1)).argmin(1)].numpy()


@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
def test_guidance_draws_what_the_library_samples(guidance, w):
    axes = at(guidance, w=w)
    images, wrong = tiles(axes[1])
    assert (images - sample(w, 3)).abs().max() < 1e-3
    assert (wrong == (reads(images) != 3)).all()
    assert axes[2].get_title().startswith(f"{int((reads(images) == 3).sum())} of 16")
    assert (tiles(axes[0])[0] - sample(1.0, 3)).abs().max() < 1e-3
    here = np.array([float(a[0]) for a in axes[2].lines[-1].get_data()])
    assert here[0] == pytest.approx(float(torch.pdist(images.flatten(1)).mean()), abs=1e-3)


@pytest.mark.parametrize("slip, same", [("1 + w", lambda w: w + 1), ("swapped", lambda w: 1 - w)])
def test_guidance_conventions_mixed_up(guidance, slip, same):
    for w in (0.0, 2.0):
        axes = at(guidance, w=w, slip=slip)
        assert (tiles(axes[1])[0] - sample(same(w), 3)).abs().max() < 1e-2
        assert slip in axes[1].get_title() and axes[1].title.get_color() == COLORS["wrong"]
    assert (tiles(axes[1])[0] - sample(2.0, 3)).abs().max() > 0.5


def test_guidance_null_label_0(guidance):
    away_from_0 = tiles(at(guidance, w=4.0, slip="null is 0")[1])[0]
    assert (away_from_0 - sample(4.0, 3, null=0)).abs().max() < 1e-3
    assert (away_from_0 - sample(4.0, 3)).abs().max() > 0.5


def test_guidance_experiments(guidance):
    apart, typical = at(guidance)[2].lines[1].get_data()
    counts = [int(at(guidance, w=w)[2].get_title().split()[0]) for w in (0.0, 1.0, 4.0)]
    assert counts[0] <= 4 and min(counts[1:]) >= 15
    at_4, at_8 = SCALES.index(4.0), SCALES.index(8.0)
    assert typical[at_4] > typical[2] > typical[0] and apart[at_4] < apart[2] < apart[0]
    assert typical[at_8] < typical[at_4] and apart[at_8] > apart[at_4]  # overdone
    assert at(guidance, slip="swapped")[2].get_title().startswith("0 of 16")
    pictures = [tiles(at(guidance, label=0, slip="null is 0", w=w)[1])[0] for w in (1.0, 8.0)]
    assert (pictures[0] - pictures[1]).abs().max() < 1e-3 and (
        tiles(at(guidance, label=0, w=8.0)[1])[0] - pictures[0]
    ).abs().max() > 0.5


def test_guidance_takes_ones_own_formula():
    lazy = explore_guidance(lambda cond, uncond, w: cond)
    assert (tiles(at(lazy, w=8.0)[1])[0] - tiles(at(lazy, w=0.0)[1])[0]).abs().max() == 0


# all of them


@pytest.mark.parametrize("explorer", [noise, variance, sampler], ids=["noise", "variance", "sampler"])
def test_every_control_changes_the_picture_and_reset_undoes_it(explorer):
    assert len(explorer.tries) == 3 and len(explorer.controls) <= 5
    before = explorer.reset().png
    for name, control in explorer.controls.items():
        other = next(value for value in settings(control) if value != control.value)
        assert explorer.set(**{name: other}).png != before and explorer.problem.value == "", name
        control.value = explorer.defaults[name]
        assert explorer.png == before, name
