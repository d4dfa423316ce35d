"""The study of solvers and spacings: what is compared starts from the same noise, and the recorded rows."""

import csv

import pytest
import torch

from dit_nb.few_steps import dpm_solver_sample, respaced_by_log_snr
from dit_nb.lab.few_steps import _SEEDS, _SOLVERS, _STEPS, RESULTS, _record, _schedules
from dit_nb.objective import Diffusion
from dit_nb.pretrained import digit_model
from dit_nb.sampling import ddim_sample


def test_both_spacings_have_the_number_of_steps():
    spacings = _schedules(Diffusion(), 7)
    assert [len(diffusion.betas) for diffusion in spacings.values()] == [7, 7]
    assert not torch.equal(*(diffusion.alphas_cumprod for diffusion in spacings.values()))


def test_all_samples_of_a_seed_start_from_the_same_noise():
    model, full, seen = digit_model("cpu")[0], Diffusion(bins=17), []
    rows = _record(model, full, 2, 3, 20, lambda x: seen.append(x) or float(x.mean()))
    assert [row[:4] for row in rows] == [
        (solver, spacing, 2, 3) for spacing in ("t", "log SNR") for solver in ("DDIM", "DPM++")
    ]
    x_T = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    options = dict(x_T=x_T, clip_x0=True, progress=False)
    first = ddim_sample(full.respaced("2"), model, x_T.shape, torch.arange(20) % 10, **options)
    spaced = respaced_by_log_snr(full, 2)
    last = dpm_solver_sample(spaced, model, x_T.shape, torch.arange(20) % 10, **options)
    assert torch.equal(seen[0], first) and torch.equal(seen[3], last)
    assert rows[0][4] == pytest.approx(float(first.mean()), abs=1e-6)


def test_results_are_complete():
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    found = [(row["solver"], row["spacing"], int(row["steps"]), int(row["seed"])) for row in rows]
    wanted = [(s, p, n, k) for s in _SOLVERS for p in ("t", "log SNR") for n in _STEPS for k in range(_SEEDS)]
    assert sorted(found) == sorted(wanted) and all(float(row["frechet"]) > 0 for row in rows)
