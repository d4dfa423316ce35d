"""Graders of the posterior and of the learned variance: densities on a grid, and laws of total variance."""

import numpy as np
import pytest
import torch

from dit_nb.teach.graders.framework.core import all_exercises
from dit_nb.teach.graders.framework.exercise import RandomInputs
from dit_nb.teach.graders.posterior import check_q_posterior
from support import relative


def moments_on_a_grid(x0, x_t, t, betas):
    """Mean and log variance of q(x_{t-1} | x_t, x_0) for numbers: a product of two densities, summed up."""
    before, beta = np.prod(1 - betas[:t]), betas[t]
    ends = x_t / np.sqrt(1 - beta), np.sqrt(before) * x0
    margin = 12 * np.sqrt(beta / (1 - beta))
    z = np.linspace(min(ends) - margin, max(ends) + margin, 40001)
    log = -((z - ends[1]) ** 2) / (2 * (1 - before)) - (x_t - np.sqrt(1 - beta) * z) ** 2 / (2 * beta)
    weights = np.exp(log - log.max())
    mean = np.average(z, weights=weights)
    return mean, np.log(np.average((z - mean) ** 2, weights=weights))


@pytest.mark.parametrize("seed", range(2))
def test_the_oracle_is_the_product_of_two_densities(seed):
    exercise = all_exercises()["q_posterior"]
    for case in exercise.cases(RandomInputs("grid", seed)):
        x0, x_t, t, betas = case.args
        means, logs = exercise.oracle(*case.args)
        for i in (i for i in range(len(t)) if t[i] > 0):
            numbers = (x0[i, 0, 0, 0].item(), x_t[i, 0, 0, 0].item(), t[i].item())
            mean, log = moments_on_a_grid(*numbers, betas.numpy())
            assert means[i, 0, 0, 0].item() == pytest.approx(mean, rel=1e-7, abs=1e-7)
            assert logs[i].item() == pytest.approx(log, abs=1e-6)


def test_steps_back_keep_the_moments_of_the_forward_process(check_identity):
    """Averaged over x_t, a step back has mean and variance of q(x_{t-1} | x_0); at t = 0 it returns x_0."""

    def holds(fn, x0, x_t, t, betas):
        mean, log = fn(x0, x_t, t, betas)
        one, zero = torch.ones_like(x0), torch.zeros_like(x0)
        a, b = fn(one, zero, t, betas)[0], fn(zero, one, t, betas)[0]
        bar = torch.cat([torch.ones(1).double(), torch.cumprod(1 - betas, 0)])
        before, after = (bar[s].reshape(-1, 1, 1, 1).expand_as(x0) for s in (t, t + 1))
        later, at_one = (t > 0), fn(x0, x_t, torch.ones_like(t), betas)[1]
        return (
            relative(mean, a * x0 + b * x_t) < 1e-9
            and relative(a + b * after.sqrt(), before.sqrt()) < 1e-9
            and relative((log.exp() + b**2 * (1 - after))[later], (1 - before)[later]) < 1e-9
            and relative(mean[~later], x0[~later]) < 1e-9
            and relative(log[~later], at_one[~later]) < 1e-9
        )

    check_identity("q_posterior", holds)


def test_a_right_mean_or_a_right_variance_is_half():
    """By the densities above: of two right results four points, of one two, of none zero."""

    def student(right_mean, right_log):
        def fn(x0, x_t, t, betas):
            mean, log = all_exercises()["q_posterior"].oracle(x0, x_t, t, betas)
            return mean if right_mean else mean + 0.1, log if right_log else log + 0.1

        return fn

    earned = [check_q_posterior(student(m, log), points=4).points for m in (1, 0) for log in (1, 0)]
    assert earned == [4, 2, 2, 0]
    only_mean = check_q_posterior(lambda *args: student(True, True)(*args)[0], points=4)
    assert only_mean.points == 0, "one result is no answer"


def test_the_log_variance_is_linear_between_its_ends(check_identity):
    def holds(fn, values, min_log, max_log):
        one = torch.ones_like(values)
        ends = relative(fn(-one, min_log, max_log), min_log.expand_as(one)) < 1e-9
        ends = ends and relative(fn(one, min_log, max_log), max_log.expand_as(one)) < 1e-9
        left, middle, right = (fn(values + step, min_log, max_log) for step in (-0.3, 0.0, 0.3))
        return ends and relative((left + right) / 2, middle) < 1e-9

    check_identity("learned_log_variance", holds)
