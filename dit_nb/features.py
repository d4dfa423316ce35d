"""Fifty thousand images, five numbers, and for each number how much of it is chance."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dit_nb.data import Split, digits, to_uint8
from dit_nb.evaluation import DigitClassifier, raw_pixels
from dit_nb.pretrained import best_device
from dit_nb.utils import check_choice


class Features(NamedTuple):
    "What a judge sees in a batch of images."

    pooled: np.ndarray  # (B, F) for Fréchet distance, precision, recall
    spatial: np.ndarray | None = None  # (B, S) features that know where, for the spatial distance
    probs: np.ndarray | None = None  # (B, K) class probabilities, for the inception score


class DigitFeatures:
    "The judge of lesson 21: hidden units, plain pixels, and probabilities of the ten digits."

    name = "digits"

    def __init__(
        self,
        split: Split | None = None,  # real digits; the judge learns from the training part
    ):
        self.judge = DigitClassifier(split or digits())

    def __call__(self, images: Tensor) -> Features:
        if images.shape[1:] != (1, 8, 8):
            raise ValueError(f"images are {sizes(images.shape[1:])}, but the digit judge wants 1x8x8.")
        judge = self.judge
        return Features(judge.features(images), raw_pixels(images), judge.probabilities(images))


class ModuleFeatures:
    "Any network from images in [-1, 1] to (B, F) features."

    def __init__(
        self,
        module: nn.Module,
        device: str | None = None,  # the fastest by default
    ):
        self.device = device or best_device()
        self.module, self.name = module.to(self.device).eval(), type(module).__name__

    def __call__(self, images: Tensor) -> Features:
        with torch.inference_mode():
            pooled = self.module(images.to(self.device))
        if pooled.ndim != 2 or len(pooled) != len(images):
            raise ValueError(f"features are {tuple(pooled.shape)}, but must be ({len(images)}, F).")
        return Features(pooled.float().cpu().numpy())


def sizes(shape: tuple[int, ...]) -> str:
    "A shape for a sentence: 3x256x256."
    return "x".join(map(str, shape))


def open_inception(
    weights: str | Path | None = None,  # a local file; by default torch-fidelity downloads them once
) -> nn.Module:  # uint8 images (B, 3, H, W) to ((B, 2048), (B, 1008))
    "Inception of 2015 with TensorFlow's weights, as torch-fidelity ported it."
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
        raise ValueError(
            f"features 'inception' need torch-fidelity, pip install 'dit_nb[measure]': {error}."
        ) from None
    if weights is not None:
        check_weights(weights)
    try:
        return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], weights)
    except RuntimeError as error:
        raise ValueError(f"weights {weights} do not fit Inception: {str(error)[:80]} ...") from None
    except OSError as error:
        raise ValueError(
            f"weights of Inception cannot be downloaded ({error}): fetch {URL_INCEPTION_V3} where there is a "
            "network, and name the file with weights."
        ) from None


def check_weights(path: str | Path) -> None:
    "Raise a ValueError where a file holds anything but weights: torch-fidelity would run code in it."
    if not Path(path).is_file():
        raise ValueError(f"weights {path} does not exist.")
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # there are many ways in which a file can be wrong
        raise ValueError(f"weights {path} cannot be read as plain weights.") from None


class InceptionFeatures:
    "The judge of FID, sFID and IS."

    name = "inception"

    def __init__(
        self,
        weights: str | Path | None = None,  # a local file, where there is no network
        device: str | None = None,  # the fastest by default
    ):
        self.device = device or best_device()
        self.net, self.seen = open_inception(weights).to(self.device), None
        self.net.Mixed_6d.branch1x1.register_forward_hook(self.keep)

    def keep(self, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        "Remember the first 7 channels, in TensorFlow's layout."
        self.seen = output[:, :7].permute(0, 2, 3, 1).flatten(1)  # (B, 17 * 17 * 7)

    def __call__(self, images: Tensor) -> Features:
        pixels = to_uint8(images).to(self.device).expand(-1, 3, -1, -1)  # grey has three equal channels
        with torch.inference_mode():
            pooled, logits = self.net(pixels)
        return Features(*(part.cpu().numpy() for part in (pooled, self.seen, logits.softmax(1))))


def open_features(features, shape: tuple[int, ...], weights: str | Path | None = None) -> Callable:
    "The judge that is asked for; by default the one that fits the size of the images."
    features = features or ("digits" if shape == (1, 8, 8) else "inception")
    if isinstance(features, nn.Module):
        return ModuleFeatures(features)
    if callable(features):
        return features
    check_choice("features", features, ("digits", "inception"))
    return DigitFeatures() if features == "digits" else InceptionFeatures(weights)
