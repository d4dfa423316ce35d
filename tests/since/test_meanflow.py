"""MeanFlow against closed forms, finite differences and flow matching."""

import math

import numpy as np
import pytest
import torch

from dit_nb import DiT, DiTConfig
from dit_nb.config import SamplingConfig
from dit_nb.interop.diffusers import to_diffusers
from dit_nb.interop.export import export_model
from dit_nb.interop.official import save_official
from dit_nb.pretrained import load_model, make_diffusion, sample_images, save_model
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.meanflow import (
    MeanFlowDiT,
    adaptive_loss,
    mean_flow_losses,
    mean_flow_sample,
    mean_flow_target,
    sample_time_pairs,
)
from dit_nb.speed import InferenceModel
from dit_nb.utils import seeded_generator
from gaussian_chain import normal
from support import error_cases, raises_input_error, randomize, relative

MEAN, STD = 0.4, 0.3  # of Gaussian data
X, T, R = normal(3, 2, 2, 3), torch.tensor([0.9, 0.6, 0.3]).double(), torch.tensor([0.2, 0.6, 0.0]).double()


def col(t):
    return t.view(-1, 1, 1, 1)


def exact_jump(x, t, r):
    """Where the trajectory of Gaussian data is at r: it keeps its number of standard deviations from the mean."""
    std = [((1 - s) ** 2 * STD**2 + s**2).sqrt() for s in (col(t), col(r))]
    return (1 - col(r)) * MEAN + std[1] / std[0] * (x - (1 - col(t)) * MEAN)


def exact_velocity(x, t, r=None):
    """Velocity of Gaussian data: expected noise minus expected data."""
    s = col(t)
    centered, variance = x - (1 - s) * MEAN, (1 - s) ** 2 * STD**2 + s**2
    return s * centered / variance - (MEAN + (1 - s) * STD**2 * centered / variance)


def exact_average(x, t, r):
    """Average velocity of Gaussian data; the velocity itself where r = t."""
    length = col(t - r)
    return torch.where(length == 0, exact_velocity(x, t), (x - exact_jump(x, t, r)) / length.clamp(min=1e-9))


def tiny(seed=0, scale=0.1, **fields):
    """A model whose weights hide nothing, in float64 where finite differences need it."""
    sizes = dict(input_size=(4, 6), patch_size=2, in_channels=2, hidden_size=16, depth=2, num_heads=2)
    config = DiTConfig(**{**sizes, "num_classes": 5, "learn_sigma": False, **fields})
    return randomize(MeanFlowDiT(config), seed, scale).eval()


IMAGES, LABELS = normal(3, 2, 4, 6).float(), torch.tensor([0, 3, 4])


def plain():
    return DiT(DiTConfig((4, 6), 2, 2, 16, 2, 2, num_classes=5)).eval()


def test_the_exact_average_velocity_is_its_own_target():
    """The identity holds for the solution, with the velocity as the direction of the derivative."""
    t, r = torch.tensor([0.9, 0.6, 0.3]).double(), torch.tensor([0.2, 0.35, 0.0]).double()
    u, target = mean_flow_target(exact_average, X, t, r, exact_velocity(X, t))
    assert relative(u, exact_average(X, t, r)) == 0 and relative(target, u) < 1e-12


def test_the_average_is_the_integral_of_the_velocity():
    """Independent of the closed form of the jump: integrate the velocity along the trajectory numerically."""
    t, r = (torch.tensor([value], dtype=torch.float64) for value in (0.9, 0.2))
    nodes, weights = np.polynomial.legendre.leggauss(100)
    times = torch.from_numpy(0.35 * nodes + 0.55)
    x = normal(1, 1, 1, 1)
    along = [exact_velocity(exact_jump(x, t, s[None]), s[None]) for s in times]
    mean = sum(w / 2 * v for w, v in zip(weights, along))
    assert relative(mean, exact_average(x, t, r)) < 1e-10


def test_where_r_is_t_the_target_is_the_velocity():
    t = torch.tensor([0.9, 0.6, 0.3])
    x, v = (normal(3, 2, 4, 6, seed=seed).float() for seed in (0, 1))
    model, y = tiny(), torch.tensor([0, 3, 4])
    _, target = mean_flow_target(lambda x, t, r: model(x, t, r, y), x, t, t, v)
    assert torch.equal(target, v) and not target.requires_grad
    flow = RectifiedFlow().training_losses(
        lambda x, time, y: model(x, time / 1000, time / 1000, y), x, t, y, noise=v
    )
    ours = mean_flow_losses(model, x, t, t, y, v)
    assert relative(ours["mse"], flow["mse"]) < 1e-5


def test_the_derivative_is_that_of_finite_differences():
    """In float64 the embedding of t is the only float32: compare in steps that are large against its rounding."""
    model, y = tiny().double(), torch.tensor([0, 3, 4])
    x, v = normal(3, 2, 4, 6), normal(3, 2, 4, 6, seed=1)
    t, r = torch.tensor([0.9, 0.6, 0.3]).double(), torch.tensor([0.2, 0.5, 0.0]).double()
    _, target = mean_flow_target(lambda x, t, r: model(x, t, r, y), x, t, r, v)
    h = 1e-2
    with torch.no_grad():
        ends = [model(x + k * h * v, t + k * h, r, y) for k in (-2, -1, 1, 2)]
    difference = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * h)
    assert relative(target, v - col(t - r) * difference) < 1e-3
    assert relative(target, v) > 0.01  # the derivative counts


def test_the_target_has_no_gradient_and_the_prediction_has():
    model, y = tiny(), torch.tensor([0, 3, 4])
    x, noise = (normal(3, 2, 4, 6, seed=seed).float() for seed in (0, 1))
    loss = mean_flow_losses(model, x, T.float(), R.float(), y, noise)["loss"].sum()
    loss.backward()
    grads = [p.grad for name, p in model.named_parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    x_t = (1 - col(T.float())) * x + col(T.float()) * noise
    u, target = mean_flow_target(lambda x, t, r: model(x, t, r, y), x_t, T.float(), R.float(), noise - x)
    weight = 1 / ((u - target).square().flatten(1).sum(1) + 0.01).detach()
    u = model(x_t, T.float(), R.float(), y)  # an ordinary forward pass, with the target as a constant
    by_hand = (weight * (u - target).square().flatten(1).sum(1)).sum()
    again = torch.autograd.grad(by_hand, [p for p in model.parameters() if p.requires_grad])
    scale = max(float(g.abs().max()) for g in again)
    assert all(float((a - b).abs().max()) < 1e-4 * scale for a, b in zip(grads, again))


def test_a_teacher_replaces_the_conditional_velocity():
    x0, noise = normal(3, 2, 2, 3), normal(3, 2, 2, 3, seed=1)
    losses = [
        mean_flow_losses(lambda x, t, r, y: exact_average(x, t, r), x0, T, R, None, noise, teacher)["mse"]
        for teacher in (lambda x, t, y: exact_velocity(x, t / 1000), None)
    ]
    assert losses[0].max() < 1e-20 and losses[1].min() > 1e-3


@pytest.mark.parametrize("equal", [0.0, 0.25, 0.75, 1.0])
def test_time_pairs(equal):
    t, r = sample_time_pairs(40_000, torch.Generator().manual_seed(0), equal=equal)
    assert ((0 < r) & (r <= t) & (t < 1)).all()
    assert float((r == t).float().mean()) == pytest.approx(equal, abs=1e-3)
    later = t[r < t].double().logit() if equal < 1 else t.double().logit()
    # The larger of two standard normal numbers has mean 1 / sqrt(pi).
    assert float(later.mean()) == pytest.approx(-0.4 + 1 / math.sqrt(math.pi), abs=0.03)


def test_adaptive_loss():
    x, target = torch.zeros(2, 1, 2, 2, requires_grad=True), torch.full((2, 1, 2, 2), 3.0)
    target[1] *= 10
    assert adaptive_loss(x, target, power=0.0).tolist() == [36.0, 3600.0]
    loss = adaptive_loss(x, target)
    assert loss.tolist() == pytest.approx([1, 1], rel=1e-3)
    loss.sum().backward()  # 2 (x - target) / error: a tenth of the gradient for ten times the distance
    assert relative(x.grad[:, 0, 0, 0], torch.tensor([-6 / 36, -60 / 3600])) < 1e-3


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_exact_jumps_reach_the_data_in_any_number_of_steps(steps):
    x_T, seen = normal(3, 1, 2, 2), []

    def model(x, t, r, y):
        return exact_average(x, t, r)

    x = mean_flow_sample(model, x_T.shape, None, steps, x_T=x_T, callback=seen.append)
    assert relative(x, MEAN + STD * x_T) < 1e-12
    assert [step.t for step in seen] == pytest.approx([k / steps for k in range(1, steps + 1)][::-1])
    for step in seen:
        assert relative(step.x_t - step.v / steps, step.x_next) < 1e-12


def test_times_are_exact_for_coarse_images():
    seen = []

    def model(x, t, r, y):
        seen.extend([float(t[0]), float(r[0])])
        return x

    mean_flow_sample(model, (1, 1, 2, 2), None, 7, x_T=torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    assert seen == pytest.approx([1 - (k + end) / 7 for k in range(7) for end in (0, 1)], abs=1e-6)


def test_small_jumps_without_an_average_are_eulers_method():
    x_T = normal(3, 1, 2, 2)
    ours = mean_flow_sample(lambda x, t, r, y: exact_velocity(x, t), x_T.shape, None, 10, x_T=x_T)
    flow, euler = RectifiedFlow().respaced(10), lambda x, t, y: exact_velocity(x, t / 1000)
    assert relative(ours, flow_sample(flow, euler, x_T.shape, x_T=x_T, progress=False)) < 1e-12


def test_the_model_depends_on_both_times_and_the_label():
    model, x = tiny(), normal(1, 2, 4, 6).float()
    inputs = [(0.9, 0.2, 0), (0.7, 0.2, 0), (0.9, 0.4, 0), (0.7, 0.0, 0), (0.9, 0.2, 1)]
    out = [model(x, torch.tensor([t]), torch.tensor([r]), torch.tensor([y])) for t, r, y in inputs]
    for i in range(len(out)):
        assert all((out[i] - out[j]).abs().max() > 1e-4 for j in range(i))
    assert out[0].shape == x.shape


def test_saved_and_loaded(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    again = MeanFlowDiT.from_pretrained(tmp_path)
    x, y = normal(3, 2, 4, 6).float(), torch.tensor([0, 3, 4])
    assert torch.equal(model(x, T.float(), R.float(), y), again(x, T.float(), R.float(), y))


def test_saved_with_settings_it_samples_like_any_other_model(tmp_path):
    save_model(tiny(), tmp_path, SamplingConfig(objective="mean_flow", steps="3"))
    model, sampling = load_model(tmp_path, device="cpu")
    assert type(model).__name__ == "MeanFlowDiT" and "MeanFlow" in (tmp_path / "README.md").read_text()
    found = sample_images(model, sampling, [0, 3], seed=5)
    generators = [seeded_generator(5, 2, i) for i in range(2)]
    wanted = mean_flow_sample(model, (2, 2, 4, 6), torch.tensor([0, 3]), 3, generator=generators).clamp(-1, 1)
    assert torch.equal(found, wanted)
    assert relative(sample_images(InferenceModel(model), sampling, [0, 3], seed=5), wanted) < 1e-5
    (tmp_path / "sampling.json").unlink()
    assert load_model(tmp_path, device="cpu")[1].objective == "mean_flow"


def test_a_fast_copy_keeps_a_forward_pass_of_ones_own():
    class Doubled(DiT):
        def forward(self, x, t, y=None, drop=None):
            return 2 * super().forward(x, t, y, drop)

    torch.manual_seed(0)
    model = randomize(Doubled(DiTConfig(4, 2, 3, 32, 2, 2, num_classes=5)), scale=0.3).eval()
    x, t, y = torch.randn(2, 3, 4, 4), torch.tensor([3, 700]), torch.tensor([0, 4])
    assert relative(InferenceModel(model)(x, t, y), model(x, t, y)) < 1e-5
    assert relative(InferenceModel(model)(x, t, y=y), model(x, t, y)) < 1e-5


def test_a_fast_copy_takes_the_label_by_name_and_nothing_that_it_would_ignore():
    x, t, y = IMAGES, torch.tensor([3, 700, 20]), LABELS
    fast = InferenceModel(plain())
    assert torch.equal(fast(x, t, y=y), fast(x, t, y))
    with pytest.raises(TypeError):
        fast(x, t, y, torch.tensor([True, False, False]))


@pytest.mark.parametrize("training", [False, True])
def test_no_other_format_takes_it_without_its_second_time(training, tmp_path):
    with raises_input_error("MeanFlowDiT.*must be a DiT for the official"):
        save_official(tiny(block="adaln_zero"), tmp_path / "a.pt", training=training)
    square = MeanFlowDiT(DiTConfig(4, 2, 2, 16, 2, 2, num_classes=5, learn_sigma=False))
    with raises_input_error("MeanFlowDiT.*must be a DiT for diffusers"):
        to_diffusers(square)


def test_it_is_exported_with_both_times(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiny()
    export_model(model, SamplingConfig(objective="mean_flow"), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    inputs = {"x": IMAGES, "t": T.float(), "r": R.float(), "y": LABELS}
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert relative(torch.from_numpy(found), model(*inputs.values())) < 1e-4


def test_a_generator_for_each_image():
    model, y = tiny(), torch.tensor([0, 3, 4])
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    batch = mean_flow_sample(model, (3, 2, 4, 6), y, 2, generator=generators)
    alone = mean_flow_sample(model, (1, 2, 4, 6), y[1:2], 2, generator=[torch.Generator().manual_seed(1)])
    assert relative(batch[1:2], alone) < 1e-5


@error_cases(
    (lambda: sample_time_pairs(3, equal=1.5), r"equal.*1.5.*\[0, 1\]"),
    (lambda: tiny(learn_sigma=True), "learn_sigma=False"),
    (lambda: tiny(block="in_context"), "one vector"),
    (lambda: mean_flow_sample(tiny(), (1, 2, 4, 6), torch.tensor([0]), 0), "steps.*0.*1 or more"),
    (lambda: SamplingConfig(objective="mean_flow", cfg_scale=2.0), "cfg_scale.*2.0.*must be 1"),
    (lambda: SamplingConfig(objective="mean_flow", sampler="euler"), "sampler.*euler.*jumps"),
    (lambda: SamplingConfig(objective="mean_flow", steps="ddim4"), "steps.*ddim4.*integer"),
    (lambda: SamplingConfig(objective="mean_flow", time_shift=2.0), "time_shift.*2.0.*must be 1"),
    (lambda: sample_images(tiny(), SamplingConfig(objective="mean_flow"), n=2), "y is missing"),
    (lambda: sample_images(tiny(), SamplingConfig(), [0]), "objective is diffusion.*mean_flow"),
    (lambda: sample_images(plain(), SamplingConfig(objective="mean_flow"), [0]), "objective is mean_flow"),
    (lambda: tiny()(IMAGES[:, :, :, :2], T.float(), R.float(), LABELS), "x is .*but must be"),
    (lambda: tiny()(IMAGES, T.float(), LABELS), "r is torch.int64.*flow times"),
    (lambda: tiny()(IMAGES, T.float(), R.float(), LABELS + 9), "y holds"),
    (lambda: tiny()(IMAGES, 500 * T.float(), R.float(), LABELS), "t holds 450"),
    (lambda: make_diffusion(SamplingConfig(objective="mean_flow")), "objective.*mean_flow"),
    (lambda: mean_flow_sample(tiny().train(), (1, 2, 4, 6), torch.tensor([0])), r"train\(\) mode"),
)
def test_input_errors(call, pattern):
    with raises_input_error(pattern):
        call()
