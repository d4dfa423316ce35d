"""Graders of lesson 30: a pair reaches both of its ends; a step with a SiT is one of `flow_sample` with its adapter."""

import torch

from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.flow_adapters import CONVENTIONS
from support import relative


def test_a_pair_reaches_both_ends_and_the_shift_multiplies_noise_over_signal(check_identity):
    def holds(fn, x0, noise, logit, shift):
        x_t, v, time = fn(x0, noise, logit, shift)
        t = time.view(-1, 1, 1, 1) / 1000
        ratio = (t / (1 - t)).flatten() / logit.exp()
        return (
            relative(x_t - t * v, x0) < 1e-9
            and relative(x_t + (1 - t) * v, noise) < 1e-9
            and relative(ratio, torch.full_like(ratio, shift)) < 1e-9
        )

    check_identity("flow_pair", holds)


def test_a_step_with_a_sit_is_a_step_of_the_sampler(check_identity):
    def holds(fn, sit, x, t, t_next):
        got, model = fn(sit, x, t, t_next), CONVENTIONS["sit"].wrap(lambda x, time, y: sit(x, time))
        for i in range(len(x)):
            times, seen = [t[i], t_next[i]] + [0.0] * bool(t_next[i]), []
            flow = RectifiedFlow(times=torch.tensor(times, dtype=torch.float64))
            one = x[i : i + 1]
            flow_sample(flow, model, one.shape, x_T=one, callback=seen.append, progress=False)
            if relative(got[i : i + 1], seen[0].x_next) > 1e-9:
                return False
        return True

    check_identity("sit_step", holds)
