"""The explorers of lesson 30, against the library's sampler, the formulas of densities, and plain sums over points."""

import numpy as np
import pytest
import torch

from dit_nb.errors import UserError
from dit_nb.since.flow import RectifiedFlow, flow_sample, flow_time
from dit_nb.teach.explore.flow import (
    _LINES,
    _SHIFTS,
    _STARTS,
    _at_time,
    _density,
    _point_velocity,
    _run_plane,
    _targets,
    _two_modes,
    explore_flow,
    explore_plane,
)
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def explorer():
    return explore_flow()


def shown_error(axes):
    return float(axes[1].get_title().split()[-1])


def trajectories(axes):
    """Times and values of the sampler's trajectories, (steps + 1, starts)."""
    lines = axes[1].lines[len(_STARTS) :]
    return lines[0].get_xdata(), np.stack([line.get_ydata() for line in lines], 1)


@pytest.mark.parametrize("step", ["euler", "heun"])
@pytest.mark.parametrize("alpha", [value for _, value in _SHIFTS])
def test_trajectories_are_those_of_the_library(explorer, at, step, alpha):
    times, found = trajectories(at(explorer, step=step, alpha=alpha, steps=4))
    x_T, seen = torch.tensor(_STARTS, dtype=torch.float64)[:, None], []
    flow = RectifiedFlow(shift=alpha).respaced(4)
    end = flow_sample(flow, _two_modes, x_T.shape, step=step, x_T=x_T, callback=seen.append, progress=False)
    np.testing.assert_allclose(times, flow.times, atol=1e-12)
    np.testing.assert_allclose(found, torch.stack([*(one.x_t for one in seen), end])[:, :, 0], atol=1e-12)


@pytest.mark.parametrize("alpha", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("density", ["uniform", "logit-normal", "diffusion"])
def test_densities_integrate_to_1_and_have_the_mean_of_the_samples(density, alpha):
    logits = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    values = _density(density, alpha, logits)
    assert torch.trapezoid(values, logits).item() == pytest.approx(1, abs=0.01)
    if density == "diffusion":
        from dit_nb.objective import Diffusion

        samples = flow_time(Diffusion().alphas_cumprod).logit()
    else:
        flow = RectifiedFlow(density.replace("-", "_"), alpha)
        samples = flow.sample_times(100_000, torch.Generator().manual_seed(0)).double().logit()
    assert torch.trapezoid(values * logits, logits).item() == pytest.approx(float(samples.mean()), abs=0.05)


def test_experiments(explorer, at):
    plain = shown_error(at(explorer))
    shifted, much = shown_error(at(explorer, alpha=3.0)), shown_error(at(explorer, alpha=6.0))
    assert plain < shifted < much
    axes = at(explorer, alpha=3.0, is_double=True)
    assert shown_error(axes) > 2 * shifted and axes[1].lines[-1].get_color() == COLORS["wrong"]
    times, _ = trajectories(axes)
    np.testing.assert_allclose(times, RectifiedFlow(shift=9.0).respaced(8).times, atol=1e-12)
    assert shown_error(at(explorer, step="heun", steps=32)) < shown_error(at(explorer, steps=32)) / 2


def test_own_shift(at):
    times, _ = trajectories(at(explore_flow(lambda t, factor: t), alpha=6.0, steps=4))
    np.testing.assert_allclose(times, [1, 0.75, 0.5, 0.25, 0])


# Points in the plane


@pytest.fixture(scope="module")
def plane():
    return explore_plane()


def followed(target, steps, step="euler", wrong=False):
    """Points from noise to the end, (steps + 1, 200, 2)."""
    return _run_plane(_targets(), target, steps, step, wrong).paths.numpy()


def mean_x0(x, t, points):
    """E[x_0 | x_t = x] for one x (2,): a sum over the data points, in numpy."""
    density = np.array([np.exp(-((x - (1 - t) * p) @ (x - (1 - t) * p)) / (2 * t * t)) for p in points])
    return sum(d * p for d, p in zip(density, points)) / density.sum()


def off_data(axes):
    """The distance of the ends to the data that the title states."""
    return float(axes[0].get_title().split()[-1])


def arrows(axes):
    """Places of the arrows and where they point to, (169, 2) each."""
    found = axes[1].collections[0]
    return np.asarray(found.get_offsets()), np.stack([found.U, found.V], 1)


@pytest.mark.parametrize("t", [1.0, 0.6, 0.2])
def test_velocity_of_points_is_noise_minus_data_on_average(t):
    points = torch.randn(7, 2, generator=torch.Generator().manual_seed(3)).double()
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(4)).double()
    found = _point_velocity(points)(x, torch.full((5,), 1000 * t, dtype=torch.float64)).numpy()
    clean = np.stack([mean_x0(one, t, points.numpy()) for one in x.numpy()])
    noise = (x.numpy() - (1 - t) * clean) / t
    np.testing.assert_allclose(found, noise - clean, atol=1e-10)


@pytest.mark.parametrize("target", _targets())
def test_one_euler_step_lands_in_the_mean_of_the_data(target):
    points, end = _targets()[target].numpy(), followed(target, 1)[-1]
    assert points.shape == end.shape == (200, 2)
    np.testing.assert_allclose(end, np.broadcast_to(points.mean(0), end.shape), atol=1e-12)
    assert np.linalg.norm(followed(target, 64)[-1] - points.mean(0), axis=1).mean() > 0.8


@pytest.mark.parametrize("step", ["euler", "heun"])
def test_trajectories_to_a_single_point_are_straight_and_end_in_it(step):
    point = torch.tensor([[0.7, -1.1]]).double()
    paths = _run_plane({"one": point}, "one", 8, step, False).paths
    t = torch.linspace(1, 0, 9).double()[:, None, None]
    torch.testing.assert_close(paths, t * paths[0] + (1 - t) * point, atol=1e-12, rtol=0)


@pytest.mark.parametrize("target", _targets())
def test_heun_is_nearer_to_many_steps_than_euler(target):
    """Halfway, twice the steps make Euler's error a half and Heun's a quarter; the last step is Euler's in both."""
    exact, halfway, end = followed(target, 400, "heun"), {}, {}
    for step, n in (("euler", 8), ("euler", 16), ("heun", 8), ("heun", 16)):
        paths = followed(target, n, step)
        halfway[step, n] = np.linalg.norm(paths[n // 2] - exact[200], axis=1).mean()
        end[step, n] = np.linalg.norm(paths[-1] - exact[-1], axis=1).mean()
    assert halfway["euler", 16] == pytest.approx(halfway["euler", 8] / 2, rel=0.15)
    assert halfway["heun", 16] == pytest.approx(halfway["heun", 8] / 4, rel=0.15)
    assert halfway["heun", 8] < halfway["euler", 8] / 5
    assert end["heun", 8] < end["euler", 8] and end["heun", 16] < end["euler", 16]


def test_trajectories_are_curved():
    paths = followed("two moons", 64)
    length = np.linalg.norm(np.diff(paths, axis=0), axis=2).sum(0) / np.linalg.norm(
        paths[-1] - paths[0], axis=1
    )
    assert np.median(length) > 1.2 and length.min() > 1


def test_points_between_two_steps():
    paths = torch.tensor([[[4.0, 0.0]], [[2.0, 2.0]], [[0.0, 6.0]]])  # at t = 1, 0.5 and 0
    for t, x in ((1.0, [4, 0]), (0.75, [3, 1]), (0.5, [2, 2]), (0.125, [0.5, 5]), (0.0, [0, 6])):
        torch.testing.assert_close(_at_time(paths, t), torch.tensor([x]).float())


def test_plane_shows_what_the_sampler_does(plane, at):
    axes, paths = at(plane, target="ring", steps=4, step="heun", t=0.5), followed("ring", 4, "heun")
    line = axes[0].lines[2].get_xydata().reshape(_LINES, 6, 2)
    np.testing.assert_allclose(line[:, :5], paths[:, :_LINES].transpose(1, 0, 2))
    assert np.isnan(line[:, 5]).all(), "gaps between the trajectories"
    np.testing.assert_allclose(axes[1].lines[-1].get_xydata(), paths[2])
    places, moves = arrows(axes)
    points = _targets()["ring"].numpy()
    velocity = np.stack([(x - mean_x0(x, 0.5, points)) / 0.5 for x in places])
    short = np.linalg.norm(moves, axis=1) < 0.37
    assert short.sum() > 20
    np.testing.assert_allclose(moves[short], -0.12 * velocity[short], atol=1e-9)
    assert np.linalg.norm(moves, axis=1).max() < 0.4, "no arrow reaches the next"


def test_plane_experiments(plane, at):
    for name, points in _targets().items():
        assert off_data(at(plane, target=name, steps=64)) < 0.01 < off_data(at(plane, target=name, steps=1))
        euler, heun = (off_data(at(plane, target=name, steps=4, step=step)) for step in ("euler", "heun"))
        assert heun < 0.75 * euler
        places, moves = arrows(at(plane, target=name, t=1.0))
        assert cosines(points.numpy().mean(0) - places, moves).min() > 1 - 1e-9
        places, moves = arrows(at(plane, target=name, t=0.05))
        nearest = np.linalg.norm(places[:, None] - 0.95 * points.numpy(), axis=2).argmin(1)
        assert np.median(cosines(points.numpy()[nearest] - places, moves)) > 0.999
    assert not at(plane, t=0.0)[1].collections, "at the end there is no velocity"
    axes = at(plane, is_swapped=True)
    assert off_data(axes) > 10 and axes[0].lines[2].get_color() == COLORS["wrong"]


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_own_points(at):
    mine = explore_plane(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(
        at(mine, steps=1)[0].lines[4].get_xydata(), np.full((_LINES, 2), 0.5), atol=1e-12
    )
    with pytest.raises(UserError, match=r"^points has shape \(3,\), but must be \(M, 2\), M at least 1\.$"):
        explore_plane(torch.zeros(3))
    with pytest.raises(UserError, match="^points is .*, but must be of the class Tensor"):
        explore_plane([[0.0, 1.0]])
