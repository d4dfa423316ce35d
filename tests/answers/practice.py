"""Answers to the exercises of lessons 19 to 23."""

import math
import warnings

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


# ---- distance_at


@right("distance_at")
def distance_at_polyfit(counts, distances, n):
    slope, end = np.polyfit(1 / counts, distances, 1)
    return slope / n + end


@right("distance_at")
def distance_at_lstsq(counts, distances, n):
    columns = torch.stack([torch.ones_like(counts), 1 / counts], dim=1)
    end, slope = torch.linalg.lstsq(columns, distances[:, None]).solution.flatten()
    return end + slope * (1 / n)


@right("distance_at")
def distance_at_by_hand(counts, distances, n):
    x = counts.reciprocal()
    slope = ((x - x.mean()) * (distances - distances.mean())).sum() / ((x - x.mean()) ** 2).sum()
    bias = 0 if math.isinf(n) else slope / n
    return float(distances.mean() - slope * x.mean() + bias)


@right("distance_at")
def distance_at_normal_equations(counts, distances, n):
    columns = np.column_stack([np.ones(len(counts)), 1 / counts.numpy()])
    return np.array([1, 1 / n]) @ np.linalg.solve(columns.T @ columns, columns.T @ distances.numpy())


@right("distance_at")
def distance_at_linregress(counts, distances, n):
    line = stats.linregress((1 / counts).tolist(), distances.tolist())
    return torch.tensor(line.intercept + line.slope / n)


@right("distance_at")
def distance_at_one_row(counts, distances, n):
    columns = torch.stack([1 / counts, torch.ones_like(counts)], dim=1)
    line = torch.linalg.lstsq(columns, distances[:, None]).solution
    return line[0] / n + line[1]


@right("distance_at")
def distance_at_one_entry(counts, distances, n):
    columns = torch.stack([1 / counts, torch.ones_like(counts)], dim=1)
    return counts.new_tensor([[1 / n, 1.0]]) @ torch.linalg.pinv(columns) @ distances[:, None]


def _line_in(x, distances):
    return np.polyfit(x, distances.numpy(), 1)


@wrong("distance_at", "The line is in n;")
def distance_at_in_n(counts, distances, n):
    slope, end = _line_in(counts.numpy(), distances)
    return end + slope * n


@wrong("distance_at", "in the logarithm of n")
def distance_at_in_log(counts, distances, n):
    slope, end = _line_in(np.log(counts.numpy()), distances)
    return end + slope * np.log(n)


@wrong("distance_at", "one over the root of n")
def distance_at_in_root(counts, distances, n):
    slope, end = _line_in(counts.numpy() ** -0.5, distances)
    return end + slope / n**0.5


@wrong("distance_at", "one over the square of n")
def distance_at_in_square(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy() ** 2, distances)
    return end + slope / n**2


@wrong("distance_at", "power law")
def distance_at_power_law(counts, distances, n):
    power, start = _line_in(counts.log().numpy(), distances.log())
    return np.exp(start + power * np.log(n))


@wrong("distance_at", "n is not used")
def distance_at_infinity(counts, distances, n):
    return _line_in(1 / counts.numpy(), distances)[1]


@wrong("distance_at", "slope of the line")
def distance_at_slope(counts, distances, n):
    return _line_in(1 / counts.numpy(), distances)[0]


@wrong("distance_at", "Slope and end are exchanged")
def distance_at_exchanged(counts, distances, n):
    end, slope = _line_in(1 / counts.numpy(), distances)
    return end + slope / n


@wrong("distance_at", "the bias at n alone")
def distance_at_bias(counts, distances, n):
    return _line_in(1 / counts.numpy(), distances)[0] / n


@wrong("distance_at", "The bias is subtracted")
def distance_at_minus(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy(), distances)
    return end - slope / n


@wrong("distance_at", "its value is taken at n")
def distance_at_times_n(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy(), distances)
    return slope * n + end


@wrong("distance_at", "forced through 0")
def distance_at_proportional(counts, distances, n):
    slope = torch.linalg.lstsq((1 / counts)[:, None], distances[:, None]).solution.item()
    return slope / n


@wrong("distance_at", "the first and the last point")
def distance_at_ends(counts, distances, n):
    slope = (distances[-1] - distances[0]) / (1 / counts[-1] - 1 / counts[0])
    return distances[0] + slope * (1 / n - 1 / counts[0])


@wrong("distance_at", "the smallest and the largest count only")
def distance_at_extremes(counts, distances, n):
    order = counts.argsort()
    return distance_at_ends(counts[order], distances[order], n)


@wrong("distance_at", "the two largest counts")
def distance_at_two_largest(counts, distances, n):
    order = counts.argsort()[-2:]
    return distance_at_ends(counts[order], distances[order], n)


@wrong("distance_at", "four largest counts")
def distance_at_four_largest(counts, distances, n):
    order = counts.argsort()[-4:]
    slope, end = np.polyfit(1 / counts[order].numpy(), distances[order].numpy(), 1)
    return end + slope / n


@wrong("distance_at", "gives 1 / n for a distance")
def distance_at_axes_exchanged(counts, distances, n):
    slope, end = np.polyfit(distances.numpy(), 1 / counts.numpy(), 1)
    return (1 / n - end) / slope


@wrong("distance_at", "counts are sorted alone")
def distance_at_counts_sorted(counts, distances, n):
    slope, end = _line_in(1 / np.sort(counts.numpy()), distances)
    return end + slope / n


@wrong("distance_at", "sorted each by themselves")
def distance_at_both_sorted(counts, distances, n):
    slope, end = np.polyfit(sorted((1 / counts).tolist()), sorted(distances.tolist()), 1)
    return end + slope / n


@wrong("distance_at", "parabola")
def distance_at_parabola(counts, distances, n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.polyval(np.polyfit(1 / counts.numpy(), distances.numpy(), 2), 1 / n)


@wrong("distance_at", "fitted to 1 / distance")
def distance_at_reciprocal(counts, distances, n):
    slope, end = np.polyfit(counts.numpy(), 1 / distances.numpy(), 1)
    return 1 / (end + slope * n)


@wrong("distance_at", "roots of the distances")
def distance_at_roots(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy(), distances.sqrt())
    return (end + slope / n) ** 2


@wrong("distance_at", "1 / (n - 1)")
def distance_at_one_less(counts, distances, n):
    slope, end = _line_in(1 / (counts.numpy() - 1), distances)
    return end + slope / (n - 1)


@wrong("distance_at", "covariance over k - 1")
def distance_at_covariance(counts, distances, n):
    x, y = 1 / counts.numpy(), distances.numpy()
    return y.mean() + np.cov(x, y)[0, 1] / np.var(x) * (1 / n - x.mean())


@wrong("distance_at", "added to the last distance")
def distance_at_bias_on_last(counts, distances, n):
    return distances[-1] + _line_in(1 / counts.numpy(), distances)[0] / n


@wrong("distance_at", "mean of distance times count")
def distance_at_mean_product(counts, distances, n):
    return sum(c * d for c, d in zip(counts.tolist(), distances.tolist())) / len(counts) / n


@wrong("distance_at", "These are slope and end")
def distance_at_both_numbers(counts, distances, n):
    return _line_in(1 / counts.numpy(), distances)


@wrong("distance_at", "between neighboring counts")
def distance_at_interp_counts(counts, distances, n):
    order = counts.argsort()
    return np.interp(n, counts[order], distances[order])


@wrong("distance_at", "keep its sign")
def distance_at_abs_slope(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy(), distances)
    return end + abs(slope) / n


@wrong("distance_at", "a point of its own")
def distance_at_counts_averaged(counts, distances, n):
    means = {c: distances[counts == c].mean().item() for c in counts.tolist()}
    slope, end = np.polyfit([1 / c for c in means], list(means.values()), 1)
    return end + slope / n


@wrong("distance_at", "multiplied by the counts before they are squared")
def distance_at_weights(counts, distances, n):
    slope, end = np.polyfit(1 / counts, distances, 1, w=counts.numpy())
    return end + slope / n


@wrong("distance_at", "Squared errors are weighted")
def distance_at_root_weights(counts, distances, n):
    slope, end = np.polyfit(1 / counts, distances, 1, w=counts.sqrt().numpy())
    return end + slope / n


@wrong("distance_at", "starts at the point of the largest count")
def distance_at_from_largest(counts, distances, n):
    slope, k = _line_in(1 / counts.numpy(), distances)[0], counts.argmax()
    return distances[k] - slope / counts[k] + slope / n


@wrong("distance_at", "nothing is extrapolated")
def distance_at_largest(counts, distances, n):
    return distances[counts.argmax()]


@wrong("distance_at", "The distances are averaged")
def distance_at_mean(counts, distances, n):
    return distances.mean()


@wrong("distance_at", "np.interp fits no line")
def distance_at_interp(counts, distances, n):
    order = counts.argsort(descending=True)
    return np.interp(1 / n, 1 / counts[order], distances[order])


@wrong("distance_at", "A value below 0 is set to 0")
def distance_at_clipped(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy(), distances)
    return max(0.0, end + slope / n)


@wrong("distance_at", "wrong for infinitely many images")
def distance_at_no_infinity(counts, distances, n):
    slope, end = _line_in(1 / counts.numpy(), distances)
    return (end * n + slope) / n


# ---- clear_differences


@right("clear_differences")
def clear_differences_ttest_rel(baseline, variants, alpha):
    p = stats.ttest_rel(variants.numpy(), baseline.numpy()[None], axis=1).pvalue
    return np.where(p < alpha / len(p), np.sign(baseline.mean().item() - variants.mean(1).numpy()), 0)


@right("clear_differences")
def clear_differences_by_hand(baseline, variants, alpha):
    m, n = variants.shape
    gaps = baseline - variants
    ratio = gaps.mean(dim=1) / gaps.std(dim=1) * math.sqrt(n)
    limit = stats.t.ppf(1 - alpha / (2 * m), n - 1)
    return (ratio > limit).int() - (ratio < -limit).int()


@right("clear_differences")
def clear_differences_intervals(baseline, variants, alpha):
    words = []
    for scores in variants.numpy():
        gaps = scores - baseline.numpy()
        low, high = stats.t.interval(1 - alpha / len(variants), len(gaps) - 1, gaps.mean(), stats.sem(gaps))
        words.append(1 if high < 0 else -1 if low > 0 else 0)
    return words


@right("clear_differences")
def clear_differences_adjusted(baseline, variants, alpha):
    gaps = (variants - baseline).numpy()
    p = stats.ttest_1samp(gaps, 0, axis=1).pvalue * len(gaps)
    return torch.tensor([0 if q >= alpha else 1 if gap.mean() < 0 else -1 for q, gap in zip(p, gaps)])


def _paired_p(baseline, variants):
    return stats.ttest_1samp((variants - baseline).numpy(), 0, axis=1).pvalue


def _better(baseline, variants):
    return np.sign((baseline - variants).mean(1).numpy())


@wrong("clear_differences", "however many there are")
def clear_differences_uncorrected(baseline, variants, alpha):
    return _better(baseline, variants) * (_paired_p(baseline, variants) < alpha)


@wrong("clear_differences", "alpha by the number of seeds")
def clear_differences_by_seeds(baseline, variants, alpha):
    return _better(baseline, variants) * (_paired_p(baseline, variants) < alpha / len(baseline))


@wrong("clear_differences", "The baseline is counted")
def clear_differences_with_baseline(baseline, variants, alpha):
    m = len(torch.cat([baseline[None], variants]))
    return _better(baseline, variants) * (_paired_p(baseline, variants) < alpha / m)


@wrong("clear_differences", "number of all pairs")
def clear_differences_pairs(baseline, variants, alpha):
    pairs = math.comb(len(variants) + 1, 2)
    return _better(baseline, variants) * (_paired_p(baseline, variants) < alpha / pairs)


@wrong("clear_differences", "goes the wrong way")
def clear_differences_wrong_way(baseline, variants, alpha):
    return _better(baseline, variants) * (_paired_p(baseline, variants) / len(variants) < alpha)


@wrong("clear_differences", "Holm's correction")
def clear_differences_holm(baseline, variants, alpha):
    p, found = _paired_p(baseline, variants), np.zeros(len(variants))
    for k, i in enumerate(np.argsort(p)):
        if p[i] >= alpha / (len(p) - k):
            break
        found[i] = _better(baseline, variants)[i]
    return found


@wrong("clear_differences", "Benjamini and Hochberg")
def clear_differences_fdr(baseline, variants, alpha):
    adjusted = stats.false_discovery_control(_paired_p(baseline, variants))
    return _better(baseline, variants) * (adjusted < alpha)


@wrong("clear_differences", "Šidák")
def clear_differences_sidak(baseline, variants, alpha):
    return _better(baseline, variants) * (
        _paired_p(baseline, variants) < 1 - (1 - alpha) ** (1 / len(variants))
    )


@wrong("clear_differences", "Better and worse are exchanged")
def clear_differences_sign(baseline, variants, alpha):
    return -clear_differences_by_hand(baseline, variants, alpha)


@wrong("clear_differences", "get the same number")
def clear_differences_either(baseline, variants, alpha):
    return _paired_p(baseline, variants) < alpha / len(variants)


@wrong("clear_differences", "lose their sign")
def clear_differences_abs(baseline, variants, alpha):
    gaps = (variants - baseline).abs().numpy()
    return -np.sign(gaps.mean(1)) * (stats.ttest_1samp(gaps, 0, axis=1).pvalue < alpha / len(gaps))


@wrong("clear_differences", "There is no test")
def clear_differences_untested(baseline, variants, alpha):
    return [1 if scores.mean() < baseline.mean() else -1 for scores in variants]


@wrong("clear_differences", "mean differences are returned")
def clear_differences_means(baseline, variants, alpha):
    clear = torch.from_numpy(_paired_p(baseline, variants)) < alpha / len(variants)
    return torch.where(clear, (variants - baseline).mean(1), 0)


@wrong("clear_differences", "The p-values are returned")
def clear_differences_p_values(baseline, variants, alpha):
    return _paired_p(baseline, variants)


@wrong("clear_differences", "one-sided")
def clear_differences_one_sided(baseline, variants, alpha):
    m, n = variants.shape
    ratio = (variants - baseline).mean(1) / (variants - baseline).std(1) * n**0.5
    return torch.sign(-ratio) * (ratio.abs() > stats.t.ppf(1 - alpha / m, n - 1))


@wrong("clear_differences", "must be Student's t")
def clear_differences_normal(baseline, variants, alpha):
    m, n = variants.shape
    ratio = (variants - baseline).mean(1) / (variants - baseline).std(1) * n**0.5
    return torch.sign(-ratio) * (ratio.abs() > stats.norm.ppf(1 - alpha / m / 2))


@wrong("clear_differences", "must divide by n - 1")
def clear_differences_numpy_std(baseline, variants, alpha):
    (m, n), gaps = variants.shape, (variants - baseline).numpy()
    ratio = gaps.mean(1) / (gaps.std(1) / n**0.5)
    return -np.sign(ratio) * (abs(ratio) > stats.t.ppf(1 - alpha / m / 2, n - 1))


@wrong("clear_differences", "share one standard deviation")
def clear_differences_one_spread(baseline, variants, alpha):
    (m, n), gaps = variants.shape, variants - baseline
    ratio = gaps.mean(1) / (gaps.std() / n**0.5)
    return -torch.sign(ratio) * (ratio.abs() > stats.t.ppf(1 - alpha / m / 2, n - 1))


@wrong("clear_differences", "for independent samples")
def clear_differences_ttest_ind(baseline, variants, alpha):
    p = stats.ttest_ind(variants.numpy(), baseline.numpy()[None], axis=1).pvalue
    return _better(baseline, variants) * (p < alpha / len(p))


@wrong("clear_differences", "Welch's test")
def clear_differences_welch(baseline, variants, alpha):
    tests = [stats.ttest_ind(scores, baseline, equal_var=False) for scores in variants]
    return [-np.sign(t) if p < alpha / len(tests) else 0 for t, p in tests]


@wrong("clear_differences", "Wilcoxon's")
def clear_differences_wilcoxon(baseline, variants, alpha):
    p = stats.wilcoxon((variants - baseline).numpy(), axis=1).pvalue
    return _better(baseline, variants) * (p < alpha / len(p))


@wrong("clear_differences", "Alpha is halved")
def clear_differences_half_alpha(baseline, variants, alpha):
    return clear_differences_by_hand(baseline, variants, alpha / 2)


def _with_p_value(p_value):
    """Better, worse or neither from a p-value of mean (m,), standard deviation (m,), and n."""

    def differences(baseline, variants, alpha):
        gaps = (variants - baseline).numpy()
        p = p_value(gaps.mean(1), gaps.std(1, ddof=1), gaps.shape[1])
        return -np.sign(gaps.mean(1)) * (p < alpha / len(gaps))

    return differences


@wrong("clear_differences", "n degrees of freedom")
def clear_differences_df(baseline, variants, alpha):
    p_value = lambda mean, std, n: 2 * stats.t.sf(abs(mean) / std * n**0.5, n)  # noqa: E731
    return _with_p_value(p_value)(baseline, variants, alpha)


@wrong("clear_differences", "root of n is missing")
def clear_differences_no_root(baseline, variants, alpha):
    p_value = lambda mean, std, n: 2 * stats.t.sf(abs(mean) / std, n - 1)  # noqa: E731
    return _with_p_value(p_value)(baseline, variants, alpha)


@wrong("clear_differences", "spread is divided by n;")
def clear_differences_by_n(baseline, variants, alpha):
    p_value = lambda mean, std, n: 2 * stats.t.sf(abs(mean) / (std / n), n - 1)  # noqa: E731
    return _with_p_value(p_value)(baseline, variants, alpha)


@wrong("clear_differences", "better variant is never found: ")
def clear_differences_no_abs(baseline, variants, alpha):
    p_value = lambda mean, std, n: 2 * stats.t.sf(mean / std * n**0.5, n - 1)  # noqa: E731
    return _with_p_value(p_value)(baseline, variants, alpha)


@wrong("clear_differences", "the limit for worse ones is one-sided")
def clear_differences_no_abs_one_sided(baseline, variants, alpha):
    p_value = lambda mean, std, n: stats.t.sf(mean / std * n**0.5, n - 1)  # noqa: E731
    return _with_p_value(p_value)(baseline, variants, alpha)


@wrong("clear_differences", "divided by m - 1")
def clear_differences_one_less(baseline, variants, alpha):
    return _better(baseline, variants) * (_paired_p(baseline, variants) < alpha / (len(variants) - 1))


@wrong("clear_differences", "worse variant is never found; it")
def clear_differences_better_only(baseline, variants, alpha):
    return [k == 1 for k in clear_differences_intervals(baseline, variants, alpha)]


@wrong("clear_differences", "the limit for better ones is one-sided")
def clear_differences_less(baseline, variants, alpha):
    test = stats.ttest_rel(variants, baseline.expand_as(variants), axis=1, alternative="less")
    return test.pvalue < alpha / len(variants)


@wrong("clear_differences", "A likely difference gets 0.5")
def clear_differences_likely(baseline, variants, alpha):
    p = _paired_p(baseline, variants)
    size = np.select([p < alpha / len(p), p < alpha], [1, 0.5])
    return _better(baseline, variants) * size


@wrong("clear_differences", "The comparison is reversed")
def clear_differences_reversed(baseline, variants, alpha):
    p = _paired_p(baseline, variants)
    return np.where(p < alpha / len(p), 0, _better(baseline, variants))


@wrong("clear_differences", "compared with their own mean")
def clear_differences_own_mean(baseline, variants, alpha):
    return clear_differences_by_hand(variants.mean(0), variants, alpha)


@wrong("clear_differences", "until there is a single variant")
def clear_differences_squeezed(baseline, variants, alpha):
    return clear_differences_by_hand(baseline, variants, alpha).squeeze()


@wrong("clear_differences", "it must run over the seeds")
def clear_differences_default_axis(baseline, variants, alpha):
    test = stats.ttest_rel(variants, baseline.expand_as(variants))
    return np.where(test.pvalue < alpha / len(variants), -np.sign(test.statistic), 0)


@wrong("clear_differences", "with the mean of the baseline")
def clear_differences_from_mean(baseline, variants, alpha):
    p = stats.ttest_1samp(variants.numpy(), baseline.mean().item(), axis=1).pvalue
    return _better(baseline, variants) * (p < alpha / len(p))


@wrong("clear_differences", "do not overlap")
def clear_differences_overlap(baseline, variants, alpha):
    m, n = variants.shape
    width = stats.t.ppf(1 - alpha / m / 2, n - 1) / n**0.5
    (low, high), found = (baseline.mean() + sign * width * baseline.std() for sign in (-1, 1)), []
    for scores in variants:
        below, above = (scores.mean() + sign * width * scores.std() for sign in (-1, 1))
        found.append(1 if above < low else -1 if below > high else 0)
    return found


@wrong("clear_differences", "if all seeds agree")
def clear_differences_all_seeds(baseline, variants, alpha):
    return (variants < baseline).all(1).int() - (variants > baseline).all(1).int()


@wrong("clear_differences", "it must run over the seeds")
def clear_differences_axis(baseline, variants, alpha):
    gaps = (variants - baseline).numpy()
    p = stats.ttest_1samp(gaps, 0).pvalue
    return -np.sign(gaps.mean(0)) * (p < alpha / len(p))


@wrong("clear_differences", "right for alpha = 0.05 only")
def clear_differences_alpha_unused(baseline, variants, alpha):
    return clear_differences_by_hand(baseline, variants, 0.05)


@wrong("clear_differences", "must return a tensor")
def clear_differences_words(baseline, variants, alpha):
    words = {1: "better", 0: "unknown", -1: "worse"}
    return [words[k] for k in clear_differences_intervals(baseline, variants, alpha)]
