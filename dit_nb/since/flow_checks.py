"""Input validation of rectified flow: densities, times, and the arguments of its sampler."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.errors import UserError, _check_callable, _check_choice, _shown
from dit_nb.utils import _check_eval

__all__ = []


def _check_times(times: Tensor) -> Tensor:
    "Return the times of a sampler in float64, or raise a UserError."
    times = torch.as_tensor(times, dtype=torch.float64).cpu()
    falls = times.ndim == 1 and len(times) > 1 and bool((times.diff() < 0).all())
    if not falls or times[0] > 1 or times[-1] != 0:
        raise UserError(
            f"times is {_shown(times.tolist())}, but must fall from at most 1 (noise) to 0 (data)."
        )
    return times


def _check_flow_time(x: Tensor, t: Tensor, name: str = "t") -> None:
    "Raise a UserError unless t is (N,) flow times. Values are read on the CPU only: a GPU would wait."
    if not isinstance(t, Tensor) or not t.is_floating_point() or t.shape != x.shape[:1]:
        got = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, Tensor) else _shown(t)
        raise UserError(f"{name} is {got}, but must be floating point flow times, ({x.shape[0]},).")
    if t.device.type != "cpu" or torch.compiler.is_compiling():
        return
    try:
        outside = bool(((t < 0) | (t > 1)).any())
    except RuntimeError:  # torch.func.vmap forbids reading values
        return
    if outside:
        raise UserError(f"{name} holds {t.abs().max():g}, but must be in [0, 1]: 0 is data, 1 is noise.")


def _check_args(model, shape, y, x_T, callback, clip_x0) -> None:
    "Raise a UserError unless these arguments of `flow_sample` fit."
    _check_callable("model", model, "x, t and y")
    _check_eval(model)
    if callback is not None:
        _check_callable("callback", callback, "a FlowStep")
    if not isinstance(clip_x0, bool):
        raise UserError(f"clip_x0 is {_shown(clip_x0)}, but must be True or False.")
    if (
        not isinstance(shape, tuple | list)
        or len(shape) < 2
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise UserError(f"shape is {_shown(shape)}, but must be numbers such as (N, C, H, W).")
    if y is not None and (not isinstance(y, Tensor) or y.ndim == 0 or len(y) != shape[0]):
        raise UserError(
            f"y is {_shown(y)}, but must be a tensor of labels, one for each of {shape[0]} images."
        )
    if x_T is not None and (
        not isinstance(x_T, Tensor) or not x_T.is_floating_point() or x_T.shape != tuple(shape)
    ):
        got = f"{x_T.dtype} of shape {tuple(x_T.shape)}" if isinstance(x_T, Tensor) else _shown(x_T)
        raise UserError(f"x_T is {got}, but must be a floating point tensor {tuple(shape)}.")


def _check_step(step: str | Callable, known: dict[str, Callable]) -> Callable:
    "Return the function of a step, or raise a UserError."
    if isinstance(step, str):
        _check_choice("step", step, known)
        return known[step]
    _check_callable("step", step, "x_t, v, t, t_next, noise and velocity")
    return step
