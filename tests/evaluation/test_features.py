"""Feature extractors: digits, any network, and Inception against its own layers."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dit_nb.data import _to_uint8
from dit_nb.emoji_features import emoji_classifier
from dit_nb.errors import UserError
from dit_nb.features import InceptionExtractor, ModuleExtractor, _open_extractor, _open_inception


def test_digit_extractor_uses_the_digit_classifier(split, extractor):
    features = extractor(split.held_out.images)
    assert np.array_equal(features.pooled, extractor.classifier.features(split.held_out.images))
    assert np.allclose(features.probs.sum(1), 1) and np.array_equal(
        features.probs.argmax(1), extractor.classifier.mlp.predict(features.spatial / 16)
    )
    assert np.allclose(features.spatial, split.held_out.images.flatten(1).numpy() * 8 + 8)


def test_extractors_that_do_not_fit(extractor):
    with pytest.raises(UserError, match="3x8x8.*1x8x8"):
        extractor(torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match=r"features are \(60, 3, 8, 8\)"):
        ModuleExtractor(torch.nn.Identity(), "cpu")(torch.zeros(60, 3, 8, 8))
    with pytest.raises(UserError, match="features.*'clip'.*digits, emoji, inception"):
        _open_extractor("clip", (3, 8, 8))


def test_parameters_and_device_of_extractors(extractor):
    """What the command prints: weights and biases of 64 pixels, 64 hidden units, 10 digits, in float64."""
    assert sum(w.numel() for w in extractor._weights()) == 64 * 64 + 64 + 64 * 10 + 10
    assert {w.dtype for w in extractor._weights()} == {torch.float64}
    own = _open_extractor(torch.nn.Linear(5, 3), (3, 8, 8), device="meta")
    assert own.device == "meta" and [w.device.type for w in own._weights()] == ["meta", "meta"]
    emoji = _open_extractor("emoji", (3, 32, 32))._weights()
    assert sum(w.numel() for w in emoji) == sum(w.numel() for w in emoji_classifier().parameters())


# Inception


def random_inception(folder):
    """A file of random weights of Inception."""
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    net = inception.FeatureExtractorInceptionV3
    made = {}

    def take(path, **_):
        made["path"] = path
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", take)
        patch.setattr(net, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        empty = net("x", ["2048"])
    torch.save(empty.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


def test_inception_features_are_those_of_adm(vision, tmp_path):
    path = random_inception(tmp_path)
    extractor = InceptionExtractor(path, device="cpu")
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = extractor(images)
    assert features.pooled.shape == (2, 2048) and features.spatial.shape == (2, 17 * 17 * 7)
    assert features.probs.shape == (2, 1008) and np.allclose(features.probs.sum(1), 1, atol=1e-5)
    # The layers one by one, up to the fourth of the mixed_6 family: its 1x1 branch, seven channels, channel last.
    net = extractor.net
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as resize,
    )

    x = (resize(_to_uint8(images).float(), size=(299, 299), align_corners=False) - 128) / 128
    for name in ("Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_1 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_2 "
                 "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c").split():  # fmt: skip
        x = getattr(net, name)(x)
    branch = net.Mixed_6d.branch1x1
    want = torch.relu(branch.bn(branch.conv(x))).numpy()
    assert want.shape == (2, 192, 17, 17)
    got = features.spatial.reshape(2, 17, 17, 7)
    for y, x_, c in ((0, 0, 0), (3, 11, 6), (16, 2, 4)):
        np.testing.assert_allclose(got[:, y, x_, c], want[:, c, y, x_], rtol=1e-4, atol=1e-6)
    logits = torch.from_numpy(features.pooled) @ net.fc.weight.T  # without the bias
    np.testing.assert_allclose(features.probs, logits.softmax(1).numpy(), rtol=1e-3, atol=1e-7)
    gray = extractor(images[:, :1])
    np.testing.assert_array_equal(gray.pooled, extractor(images[:, :1].expand(-1, 3, -1, -1)).pooled)


def test_files_that_hold_no_weights_raise_and_run_no_code(vision, tmp_path):
    pytest.importorskip("torch_fidelity")

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, words in (
        ("trap", "trap.pth"),
        ("text", "text.pth"),
        ("no", "no.pth"),
        ("other", "other.pth"),
    ):
        error = FileNotFoundError if name == "no" else UserError
        with pytest.raises(error, match=words):
            _open_inception(tmp_path / f"{name}.pth")
    assert not (tmp_path / "ran").exists()


def test_inception_without_a_network(vision, monkeypatch, tmp_path):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    from urllib.error import URLError

    def offline(*args, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(module, "load_state_dict_from_url", offline)
    with pytest.raises(UserError, match="weights of Inception .*no route to host"):
        _open_inception()


def test_inception_without_torch_fidelity(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ImportError, match="torch-fidelity.*dit_nb.measure"):
        _open_inception()
