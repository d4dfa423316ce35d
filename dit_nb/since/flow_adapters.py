"""Other models as velocity models for `RectifiedFlow`: noise prediction; other times and signs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dit_nb.errors import UserError, _check_callable, _check_number, _check_type, _shown
from dit_nb.objective import Diffusion, _split_output
from dit_nb.since.flow import RectifiedFlow, _like

__all__ = ["CONVENTIONS", "NoiseAsVelocity", "TimeConvention"]


class NoiseAsVelocity:
    """A noise-prediction model as a velocity model for `RectifiedFlow`, without training it again.

    The model is called at the timestep of the same log SNR, a fraction between two timesteps. Flow
    times (0 is data, 1 is noise) before its first or after its last timestep use that one.

    Args:
        model: (x, t, y) -> (N, 2C, H, W), or (N, C, H, W); its t may be fractions of timesteps
        diffusion: schedule that it was trained with, not respaced

    Attributes:
        null_class: label that means no label, if the model has one

    Raises:
        UserError: if `model` is no function, or `diffusion` no Diffusion
    """

    def __init__(self, model: Callable, diffusion: Diffusion):
        _check_callable("model", model, "x, t and y")
        _check_type("diffusion", diffusion, Diffusion)
        self.model, self.null_class = model, getattr(model, "null_class", None)
        bar = diffusion.alphas_cumprod.double().cpu()
        self._log_snr = (bar / (1 - bar)).log()  # (T,), falling

    @property
    def training(self) -> bool:
        "Whether the model is in train() mode."
        return getattr(self.model, "training", False)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict the velocity (N, C, H, W).

        Args:
            x: images on the straight path, (N, C, H, W)
            t: 1000 times the flow time, (N,): 0 is data, 1000 is noise
            y: labels, (N,)
        """
        time = t.double().cpu() / RectifiedFlow.num_timesteps
        log_snr = (-2 * time.logit()).clamp(self._log_snr[-1], self._log_snr[0])
        timestep = _like(self._timestep(log_snr), x)  # (N, 1, 1, 1)
        signal = _like(log_snr.sigmoid(), x)  # alphas_cumprod
        time = _like(time, x)  # (N, 1, 1, 1)
        x_vp = x / ((1 - time) ** 2 + time**2).sqrt()
        eps = _split_output(self.model(x_vp, timestep.flatten(), y), x)[0]  # (N, C, H, W)
        x0 = (x_vp - (1 - signal).sqrt() * eps) / signal.sqrt()
        late, early = (x - x0) / time.clamp(min=0.5), (eps - x) / (1 - time).clamp(min=0.5)
        return torch.where(time > 0.5, late, early)

    def _timestep(self, log_snr: Tensor) -> Tensor:
        "Timesteps (N,) that have these values of log SNR: fractions, linear in between."
        above = torch.searchsorted(-self._log_snr, -log_snr).clamp(1, len(self._log_snr) - 1)
        high, low = self._log_snr[above - 1], self._log_snr[above]
        timestep = above - (log_snr - low) / (high - low)
        whole = timestep.round()
        is_whole = (timestep - whole).abs() < 1e-6  # no rounding errors at timesteps
        return torch.where(is_whole, whole, timestep)


@dataclass(frozen=True)
class TimeConvention:
    """What a flow model calls time and velocity, with an adapter to ours.

    Ours: t = 0 is data, t = 1 is noise, and the velocity is noise minus data.

    Args:
        noise_at: time of pure noise in [0, 1]: 1, or 0 if time runs from noise to data
        scale: factor between time in [0, 1] and the number that the network receives, 1000 or 1
        sign: 1 if the network returns noise minus data, -1 if it returns data minus noise

    Raises:
        UserError: if `noise_at` or `sign` has another value, or `scale` is no number above 0
    """

    noise_at: int = 1
    scale: float = 1000.0
    sign: int = 1

    def __post_init__(self):
        for name, known in (("noise_at", (0, 1)), ("sign", (-1, 1))):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"{name} is {_shown(value)}, but must be {known[0]} or {known[1]}.")
        _check_number("scale", self.scale)

    def from_flow(self, t: Tensor) -> Tensor:
        "Return the number that the network receives at our flow time t (0 is data, 1 is noise)."
        return self.scale * (t if self.noise_at == 1 else 1 - t)

    def to_flow(self, time: Tensor) -> Tensor:
        "Return our flow time (0 is data, 1 is noise) at a number that the network receives."
        return time / self.scale if self.noise_at == 1 else 1 - time / self.scale

    def wrap(self, model: Callable) -> Callable:
        """Make a model (x, its time, y) -> its velocity a model (x, 1000 t, y) -> our velocity.

        Raises:
            UserError: if `model` is no function
        """
        _check_callable("model", model, "x, t and y")
        return _Converted(model, self)


class _Converted:
    "A model behind its `TimeConvention`, called with 1000 t."

    def __init__(self, model: Callable, convention: TimeConvention):
        self.model, self.convention = model, convention
        self.null_class = getattr(model, "null_class", None)

    @property
    def training(self) -> bool:
        return getattr(self.model, "training", False)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        time = self.convention.from_flow(t / RectifiedFlow.num_timesteps)
        return self.convention.sign * _split_output(self.model(x, time, y), x)[0]


CONVENTIONS = {
    "sd3": TimeConvention(),
    "flux": TimeConvention(scale=1.0),  # diffusers' module multiplies by 1000 inside
    "repa": TimeConvention(scale=1.0),
    "sit": TimeConvention(noise_at=0, scale=1.0, sign=-1),
    "lightningdit": TimeConvention(noise_at=0, scale=1.0, sign=-1),
    "lumina2": TimeConvention(noise_at=0, scale=1.0, sign=-1),
    "z-image": TimeConvention(noise_at=0, scale=1.0, sign=-1),  # as that of FLUX
}
