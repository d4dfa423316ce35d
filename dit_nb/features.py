"""Feature extractors for evaluation: Inception as ADM uses it, the classifier of digits, or any network.

An extractor is any callable from images (B, C, H, W) in [-1, 1] to `Features`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dit_nb.data import Split, _to_uint8, digits
from dit_nb.errors import UserError, _check_choice
from dit_nb.evaluation import DigitClassifier, _raw_pixels
from dit_nb.pretrained import _best_device

__all__ = ["DigitExtractor", "Features", "InceptionExtractor", "ModuleExtractor"]


class Features(NamedTuple):
    "Features of a batch of images. What is None is not measured."

    pooled: np.ndarray  # (B, F) for Fréchet distance, precision and recall
    spatial: np.ndarray | None = None  # (B, S) with the places still apart, for the spatial Fréchet distance
    probs: np.ndarray | None = None  # (B, K) class probabilities, for the inception score


class DigitExtractor:
    """Features of 8x8 digits: hidden units of `DigitClassifier`, plain pixels, and class probabilities.

    Args:
        split: real digits; the classifier is trained on their training part. Made by `digits` by default
    """

    name = "digits"

    def __init__(self, split: Split | None = None):
        self.classifier = DigitClassifier(split or digits())

    def _weights(self) -> list[Tensor]:
        mlp = self.classifier.mlp
        return [torch.from_numpy(part) for part in (*mlp.coefs_, *mlp.intercepts_)]

    def __call__(self, images: Tensor) -> Features:
        """Compute the features of images (N, 1, 8, 8) in [-1, 1].

        Raises:
            UserError: if the images have another shape
        """
        if images.shape[1:] != (1, 8, 8):
            raise UserError(f"images are {_shape_text(images.shape[1:])}, but must be 1x8x8 for digits.")
        classifier = self.classifier
        return Features(classifier.features(images), _raw_pixels(images), classifier.probabilities(images))


class ModuleExtractor:
    """Features by any network that takes images in [-1, 1] and returns (B, F).

    Args:
        module: network; is put into eval() mode
        device: device to compute on; the fastest by default
    """

    def __init__(self, module: nn.Module, device: torch.device | str | None = None):
        self.device = device or _best_device()
        self.module, self.name = module.to(self.device).eval(), type(module).__name__

    def _weights(self) -> list[Tensor]:
        return list(self.module.parameters())

    def __call__(self, images: Tensor) -> Features:
        """Compute the features (N, F) of images (N, C, H, W) in [-1, 1].

        Raises:
            UserError: if the network does not return (N, F)
        """
        with torch.inference_mode():
            pooled = self.module(images.to(self.device))
        if pooled.ndim != 2 or len(pooled) != len(images):
            raise UserError(f"features are {tuple(pooled.shape)}, but must be ({len(images)}, F).")
        return Features(pooled.float().cpu().numpy())


class InceptionExtractor:
    """Features for FID, sFID and inception score, by the network of 2015 that ADM's evaluator uses.

    FID takes the 2048 averages of `pool_3`, the inception score the 1008 logits without their bias, and sFID the
    first 7 channels of `mixed_6/conv` on 17x17 places, in TensorFlow's order (channels last).

    Args:
        weights: file of weights; by default torch-fidelity downloads them once
        device: device to compute on; the fastest by default

    Raises:
        ImportError: if torch-fidelity is missing
        FileNotFoundError: if there is no such file of weights
        UserError: if the weights cannot be downloaded, or do not fit
    """

    name = "inception"

    def __init__(self, weights: str | Path | None = None, device: torch.device | str | None = None):
        self.device = device or _best_device()
        self.net, self._spatial = _open_inception(weights).to(self.device), None
        self.net.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)

    def _weights(self) -> list[Tensor]:
        return list(self.net.parameters())

    def _keep_spatial(self, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._spatial = output[:, :7].permute(0, 2, 3, 1).flatten(1)  # (B, 17 * 17 * 7)

    def __call__(self, images: Tensor) -> Features:
        """Compute the features of images (N, C, H, W) in [-1, 1], gray or RGB."""
        pixels = _to_uint8(images).to(self.device).expand(-1, 3, -1, -1)  # gray has three equal channels
        with torch.inference_mode():
            pooled, logits = self.net(pixels)
        return Features(*(part.cpu().numpy() for part in (pooled, self._spatial, logits.softmax(1))))


def _open_inception(weights: str | Path | None = None) -> nn.Module:
    "Inception with TensorFlow's weights, from torch-fidelity: uint8 (B, 3, H, W) to (B, 2048) and (B, 1008)."
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
        raise ImportError(
            f"features 'inception' need torch-fidelity, pip install 'dit_nb[measure]': {error}.",
            name="torch_fidelity",
        ) from None
    if weights is not None:
        _check_weights(weights)
    try:
        return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], weights)
    except RuntimeError as error:
        raise UserError(f"weights {weights} do not fit Inception: {str(error)[:80]} ...") from None
    except OSError as error:
        raise UserError(
            f"weights of Inception cannot be downloaded ({error}): fetch {URL_INCEPTION_V3} on a machine with a "
            "network, and name the file with weights."
        ) from None


def _check_weights(path: str | Path) -> None:
    "Raise a UserError if a file holds anything but weights: torch-fidelity would run code that is in it."
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights {path} does not exist.")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # there are many ways in which a file can be wrong
        raise UserError(f"weights {path} cannot be read as plain weights.") from None


def _open_extractor(
    features,
    shape: tuple[int, ...],
    weights: str | Path | None = None,
    device: torch.device | str | None = None,
) -> Callable:
    "Extractor by name, around a module, or as it is; by default the one that fits images of `shape` (C, H, W)."
    if features is None:
        features = "digits" if shape == (1, 8, 8) else "inception"
    if isinstance(features, nn.Module):
        return ModuleExtractor(features, device)
    if callable(features):
        return features
    _check_choice("features", features, ("digits", "emoji", "inception"))
    if features == "emoji":
        from dit_nb.emoji_features import _EmojiExtractor

        return _EmojiExtractor()
    return DigitExtractor() if features == "digits" else InceptionExtractor(weights, device)


def _shape_text(shape: tuple[int, ...]) -> str:
    "A shape as text, such as 3x256x256."
    return "x".join(map(str, shape))
