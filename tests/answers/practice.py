"""Answers to the exercises of lessons 19 to 23."""

import math

import numpy as np
import torch
from scipy import stats
from scipy.linalg import sqrtm

from . import right, wrong

# ---- frechet


@right("frechet")
def frechet_eigh(a, b):
    cov_a, cov_b = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + cov_a.trace() + cov_b.trace() - 2 * mixed


@right("frechet")
def frechet_numpy_sqrtm(a, b):
    a, b = a.numpy(), b.numpy()
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = np.real(sqrtm(cov_a @ cov_b))
    return np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)


@right("frechet")
def frechet_eigenvalues(a, b):
    one, two = (x - x.mean(0) for x in (a, b))
    cov_a, cov_b = one.T @ one / (len(a) - 1), two.T @ two / (len(b) - 1)
    roots = torch.linalg.eigvals(cov_a @ cov_b).sqrt().real.sum()
    return float((a.mean(0) - b.mean(0)).pow(2).sum() + cov_a.trace() + cov_b.trace() - 2 * roots)


def _moments(a, b):
    return a.mean(0) - b.mean(0), *(torch.atleast_2d(torch.cov(x.T)) for x in (a, b))


def _root_of(cov):
    values, vectors = torch.linalg.eigh(cov)
    return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T


def _last_trace(cov_a, cov_b):
    return torch.linalg.eigvalsh(_root_of(cov_a) @ cov_b @ _root_of(cov_a)).clamp(min=0).sqrt().sum()


@wrong("frechet", "root is taken of each entry; the matrix")
def frechet_elementwise_root(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + torch.trace(cov_a + cov_b - 2 * torch.sqrt(cov_a @ cov_b))


@wrong("frechet", "negative ones set to 0")
def frechet_elementwise_clipped(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + torch.trace(cov_a + cov_b - 2 * (cov_a @ cov_b).clamp(min=0).sqrt())


@wrong("frechet", "factor 2")
def frechet_no_factor(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.trace() + cov_b.trace() - _last_trace(cov_a, cov_b)


@wrong("frechet", "must be subtracted")
def frechet_plus(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.trace() + cov_b.trace() + 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "There is no root")
def frechet_no_root(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + torch.trace(cov_a + cov_b - 2 * cov_a @ cov_b)


def _cov_of_rows(x):
    rows = x - x.mean(1, keepdim=True)
    return rows @ rows.T / torch.tensor(x.shape[1] - 1)


@wrong("frechet", "covariances are of the images")
def frechet_rows(a, b):
    gap, (cov_a, cov_b) = a.mean(0) - b.mean(0), (_cov_of_rows(x) for x in (a, b))
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "Only the standard deviation of each feature")
def frechet_standard_deviations(a, b):
    return ((a.mean(0) - b.mean(0)) ** 2 + (a.std(0) - b.std(0)) ** 2).sum()


@wrong("frechet", "Only eigenvalues are compared")
def frechet_sorted_eigenvalues(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    one, two = (torch.linalg.eigvalsh(cov).clamp(min=0).sqrt() for cov in (cov_a, cov_b))
    return gap @ gap + ((one - two) ** 2).sum()


@wrong("frechet", "Each covariance gets a root of its own")
def frechet_roots_multiplied(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + torch.trace(cov_a + cov_b - 2 * _root_of(cov_a) @ _root_of(cov_b))


@wrong("frechet", "half of it is ignored")
def frechet_eigvalsh_of_product(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    values = torch.linalg.eigvalsh(cov_a @ cov_b).clamp(min=0)
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * values.sqrt().sum()


@wrong("frechet", "some come out negative")
def frechet_eigvalsh_of_product_nan(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * torch.linalg.eigvalsh(cov_a @ cov_b).sqrt().sum()


@wrong("frechet", "divide by N; np.cov")
def frechet_biased(a, b):
    gap, (cov_a, cov_b) = (
        a.mean(0) - b.mean(0),
        (torch.from_numpy(np.atleast_2d(np.cov(x.numpy(), rowvar=False, bias=True))) for x in (a, b)),
    )
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "not centered")
def frechet_second_moments(a, b):
    gap, cov_a, cov_b = a.mean(0) - b.mean(0), a.T @ a / (len(a) - 1), b.T @ b / (len(b) - 1)
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "the distance itself")
def frechet_root_of_all(a, b):
    return frechet_eigh(a, b).sqrt()


@wrong("frechet", "averaged over the features")
def frechet_mean_of_squares(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return (gap**2).mean() + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "is not squared")
def frechet_norm(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return torch.linalg.norm(gap) + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "term of the means is missing")
def frechet_no_means(a, b):
    _, cov_a, cov_b = _moments(a, b)
    return cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "Only the means are compared")
def frechet_means_only(a, b):
    return ((a.mean(0) - b.mean(0)) ** 2).sum()


@wrong("frechet", "one mean for all features")
def frechet_one_mean(a, b):
    _, cov_a, cov_b = _moments(a, b)
    gap = a.mean() - b.mean()
    return gap**2 + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "fewer images than features")
def frechet_no_clip(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ values.sqrt().diag() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ cov_b @ root).sqrt().sum()
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * mixed


@wrong("frechet", "must be torch.float64")
def frechet_complex(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * torch.linalg.eigvals(cov_a @ cov_b).sqrt().sum()


@wrong("frechet", "has shape")
def frechet_matrix(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a + cov_b - 2 * _root_of(cov_a @ cov_b)


# ---- paired_interval


@right("paired_interval")
def paired_interval_scipy(first, second, level):
    gaps = (second - first).numpy()
    low, high = stats.t.interval(level, len(gaps) - 1, gaps.mean(), stats.sem(gaps))
    return gaps.mean(), low, high


@right("paired_interval")
def paired_interval_by_hand(first, second, level):
    gaps = second - first
    half = stats.t.ppf((1 + level) / 2, len(gaps) - 1) * gaps.std() / math.sqrt(len(gaps))
    return torch.stack([gaps.mean(), gaps.mean() - half, gaps.mean() + half])


@right("paired_interval")
def paired_interval_ttest(first, second, level):
    found = stats.ttest_rel(second.numpy(), first.numpy()).confidence_interval(level)
    return float((second - first).mean()), found.low, found.high


def _around(mean, half):
    return float(mean), float(mean - half), float(mean + half)


def _t(level, df):
    return stats.t.ppf(0.5 + level / 2, df)


@wrong("paired_interval", "2n - 2 degrees")
def paired_interval_ttest_ind(first, second, level):
    found = stats.ttest_ind(second.numpy(), first.numpy()).confidence_interval(level)
    return float((second - first).mean()), found.low, found.high


@wrong("paired_interval", "so the spread of the differences counts.")
def paired_interval_unpaired(first, second, level):
    n = len(first)
    error = ((first.var() + second.var()) / n) ** 0.5
    return _around(second.mean() - first.mean(), _t(level, n - 1) * error)


@wrong("paired_interval", "Welch")
def paired_interval_welch(first, second, level):
    found = stats.ttest_ind(second.numpy(), first.numpy(), equal_var=False).confidence_interval(level)
    return float((second - first).mean()), found.low, found.high


@wrong("paired_interval", "must divide by n - 1")
def paired_interval_numpy_std(first, second, level):
    gaps = second.numpy() - first.numpy()
    return _around(gaps.mean(), _t(level, len(gaps) - 1) * np.std(gaps) / np.sqrt(len(gaps)))


@wrong("paired_interval", "must be Student's t")
def paired_interval_z(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), stats.norm.ppf(0.5 + level / 2) * gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "is two standard errors")
def paired_interval_two(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), 2 * gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "1.96 standard errors")
def paired_interval_196(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), 1.96 * gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "one standard error")
def paired_interval_error_bar(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "on one side")
def paired_interval_one_sided(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), stats.t.ppf(level, len(gaps) - 1) * gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "n degrees of freedom")
def paired_interval_df_n(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), _t(level, len(gaps)) * gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "falls with the root of n")
def paired_interval_over_n(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), _t(level, len(gaps) - 1) * gaps.std() / len(gaps))


@wrong("paired_interval", "for one more seed")
def paired_interval_of_a_run(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), _t(level, len(gaps) - 1) * gaps.std())


@wrong("paired_interval", "The variance is used")
def paired_interval_variance(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), _t(level, len(gaps) - 1) * gaps.var() / len(gaps) ** 0.5)


@wrong("paired_interval", "its root is missing")
def paired_interval_no_root(first, second, level):
    gaps = second - first
    return _around(gaps.mean(), _t(level, len(gaps) - 1) * gaps.var() / len(gaps))


@wrong("paired_interval", "second minus first")
def paired_interval_sign(first, second, level):
    return paired_interval_by_hand(second, first, level)


@wrong("paired_interval", "lose their sign")
def paired_interval_abs(first, second, level):
    gaps = second - first
    return _around(gaps.abs().mean(), _t(level, len(gaps) - 1) * gaps.std() / len(gaps) ** 0.5)


@wrong("paired_interval", "lie around zero")
def paired_interval_around_zero(first, second, level):
    mean, low, high = _around(0.0, paired_interval_by_hand(first, second, level)[2] - (second - first).mean())
    return float((second - first).mean()), low, high


@wrong("paired_interval", "are exchanged")
def paired_interval_swapped(first, second, level):
    mean, low, high = paired_interval_by_hand(first, second, level)
    return mean, high, low


@wrong("paired_interval", "half width is given")
def paired_interval_half(first, second, level):
    mean, low, high = paired_interval_by_hand(first, second, level)
    return mean, mean - low, high - mean


@wrong("paired_interval", "percentiles of the differences")
def paired_interval_percentiles(first, second, level):
    gaps = (second - first).numpy()
    return gaps.mean(), *np.quantile(gaps, [0.5 - level / 2, 0.5 + level / 2])


@wrong("paired_interval", "smallest and the largest")
def paired_interval_range(first, second, level):
    gaps = second - first
    return gaps.mean(), gaps.min(), gaps.max()


@wrong("paired_interval", "second variant's own interval")
def paired_interval_own(first, second, level):
    return _around(second.mean(), _t(level, len(second) - 1) * second.std() / len(second) ** 0.5)


@wrong("paired_interval", "right for 95 % only")
def paired_interval_level_unused(first, second, level):
    return paired_interval_by_hand(first, second, 0.95)


@wrong("paired_interval", "must return a tensor")
def paired_interval_nested(first, second, level):
    mean, low, high = paired_interval_by_hand(first, second, level)
    return mean, (low, high)


# ---- mean_ablation


@right("mean_ablation")
def mean_ablation_finally(model, layer, x):
    handle = layer.register_forward_hook(lambda module, args, out: out.mean(0, keepdim=True).expand_as(out))
    try:
        return model(x)
    finally:
        handle.remove()


@right("mean_ablation")
def mean_ablation_with(model, layer, x):
    def average(module, inputs, output):
        return torch.zeros_like(output) + output.mean(dim=0)

    with layer.register_forward_hook(average), torch.no_grad():
        return model(x)


@right("mean_ablation")
def mean_ablation_repeat(model, layer, x):
    def average(module, inputs, output):
        return output.mean(0, keepdim=True).repeat(len(output), 1, 1)

    handle = layer.register_forward_hook(average)
    try:
        result = model(x)
    except Exception:
        handle.remove()
        raise
    handle.remove()
    return result


def _hooked(model, layer, x, hook, pre=False):
    with (layer.register_forward_pre_hook if pre else layer.register_forward_hook)(hook):
        return model(x)


@wrong("mean_ablation", "nothing was replaced")
def mean_ablation_no_return(model, layer, x):
    def average(module, inputs, output):
        output = output.mean(0, keepdim=True).expand_as(output)

    return _hooked(model, layer, x, average)


@wrong("mean_ablation", "nothing was replaced")
def mean_ablation_removed_early(model, layer, x):
    handle = layer.register_forward_hook(lambda module, args, out: out.mean(0, keepdim=True).expand_as(out))
    handle.remove()
    return model(x)


@wrong("mean_ablation", "never removed")
def mean_ablation_left(model, layer, x):
    layer.register_forward_hook(lambda module, args, out: out.mean(0, keepdim=True).expand_as(out))
    return model(x)


@wrong("mean_ablation", "raises an error")
def mean_ablation_no_finally(model, layer, x):
    handle = layer.register_forward_hook(lambda module, args, out: out.mean(0, keepdim=True).expand_as(out))
    result = model(x)
    handle.remove()
    return result


@wrong("mean_ablation", "in place")
def mean_ablation_in_place(model, layer, x):
    def average(module, args, out):
        out[:] = out.mean(0, keepdim=True)

    with torch.no_grad():
        return _hooked(model, layer, x, average)


@wrong("mean_ablation", "somebody else")
def mean_ablation_clears_all(model, layer, x):
    layer.register_forward_hook(lambda module, args, out: out.mean(0, keepdim=True).expand_as(out))
    try:
        return model(x)
    finally:
        layer._forward_hooks.clear()


@wrong("mean_ablation", "replaced by 0")
def mean_ablation_zero(model, layer, x):
    return _hooked(model, layer, x, lambda module, args, out: 0 * out)


@wrong("mean_ablation", "one mean for all numbers")
def mean_ablation_scalar(model, layer, x):
    return _hooked(model, layer, x, lambda module, args, out: torch.full_like(out, out.mean().item()))


@wrong("mean_ablation", "not over the tokens")
def mean_ablation_tokens(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out.mean(1, keepdim=True).expand_as(out))


@wrong("mean_ablation", "not over the channels")
def mean_ablation_channels(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out.mean(-1, keepdim=True).expand_as(out))


@wrong("mean_ablation", "one mean for each channel")
def mean_ablation_two_axes(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out.mean((0, 1)).expand_as(out))


@wrong("mean_ablation", "lost the axis of the images")
def mean_ablation_shape(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out.mean(0))


@wrong("mean_ablation", "has only one image")
def mean_ablation_keepdim(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out.mean(dim=0, keepdim=True))


@wrong("mean_ablation", "is subtracted")
def mean_ablation_centered(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out - out.mean(0))


@wrong("mean_ablation", "output of the whole model")
def mean_ablation_wrong_module(model, layer, x):
    return _hooked(model, model, x, lambda m, args, out: out.mean(0, keepdim=True).expand_as(out))


@wrong("mean_ablation", "replaces the layer's input")
def mean_ablation_pre_hook(model, layer, x):
    return _hooked(
        model, layer, x, lambda m, args: args[0].mean(0, keepdim=True).expand_as(args[0]), pre=True
    )


@wrong("mean_ablation", "what the layer returned, averaged")
def mean_ablation_returns_record(model, layer, x):
    kept = []

    def average(module, args, out):
        kept.append(out.mean(0, keepdim=True).expand_as(out))
        return kept[-1]

    _hooked(model, layer, x, average)
    return kept[0]


@wrong("mean_ablation", "input of the model is averaged")
def mean_ablation_input(model, layer, x):
    return model(x.mean(0, keepdim=True).expand_as(x))


@wrong("mean_ablation", "output of the whole model")
def mean_ablation_output(model, layer, x):
    out = model(x)
    return out.mean(0, keepdim=True).expand_as(out)


@wrong("mean_ablation", "output of one image")
def mean_ablation_first_image(model, layer, x):
    return _hooked(model, layer, x, lambda m, args, out: out[0].expand_as(out))


@wrong("frechet", "negative ones made positive")
def frechet_elementwise_abs(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + torch.trace(cov_a + cov_b - 2 * torch.sqrt(torch.abs(cov_a @ cov_b)))


@wrong("frechet", "multiplied entry by entry")
def frechet_product_of_entries(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    root = np.real(sqrtm((cov_a * cov_b).numpy()))
    return float(gap @ gap + cov_a.trace() + cov_b.trace()) - 2 * np.trace(root)


@wrong("frechet", "root is taken of the trace")
def frechet_root_of_trace(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * torch.trace(cov_a @ cov_b).sqrt()


@wrong("frechet", "product of two traces")
def frechet_product_of_traces(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.trace() + cov_b.trace() - 2 * (cov_a.trace() * cov_b.trace()).sqrt()


@wrong("frechet", "absolute differences of the means")
def frechet_absolute_gap(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap.abs().sum() + cov_a.trace() + cov_b.trace() - 2 * _last_trace(cov_a, cov_b)


@wrong("frechet", "All entries of the covariances")
def frechet_all_entries(a, b):
    gap, cov_a, cov_b = _moments(a, b)
    return gap @ gap + cov_a.sum() + cov_b.sum() - 2 * _last_trace(cov_a, cov_b)


@wrong("mean_ablation", "changes the mode of the model")
def mean_ablation_evaluates(model, layer, x):
    model.eval()
    return _hooked(model, layer, x, lambda m, args, out: out.mean(0, keepdim=True).expand_as(out))


@wrong("mean_ablation", "changes the mode of the model")
def mean_ablation_evaluates_and_trains(model, layer, x):
    model.eval()
    output = _hooked(model, layer, x, lambda m, args, out: out.mean(0, keepdim=True).expand_as(out))
    model.train()
    return output


@wrong("frechet", "no Cholesky factor")
def frechet_by_cholesky(a, b):
    covariances = [torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b)]
    factor = torch.linalg.cholesky(covariances[0])
    roots = torch.linalg.eigvalsh(factor.T @ covariances[1] @ factor).clamp(min=0).sqrt()
    traces = sum(c.diagonal().sum() for c in covariances)
    return (a.mean(0) - b.mean(0)).square().sum() + traces - 2 * roots.sum()
