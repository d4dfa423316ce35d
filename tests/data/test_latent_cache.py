"""Latents on disk: their content, several processes, interrupted runs, and folders that cannot be used."""

import json

import numpy as np
import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig, TrainConfig, latent_cache
from dit_nb.data import ImageSet
from dit_nb.latent_cache import (
    _begin_latents,
    _encode_shards,
    _finish_latents,
    _plan_latents,
    _work_folder,
    _write_shard,
    encode_images,
    open_latents,
)
from dit_nb.latents import LatentCodec, sample_latents
from support import raises_input_error, relative
from support_latents import CHANNELS, LinearVAE, linear_image_set, linear_images


def test_a_cache_holds_the_image_and_its_mirror_image(tmp_path):
    data, codec = linear_image_set(5), LatentCodec(LinearVAE())
    latents = encode_images(data, codec, tmp_path / "z", batch_size=2, progress=False)
    moments, labels = latents.get_batch([4, 0])
    assert moments.shape == (2, 2, 2, CHANNELS, 4, 6) and moments.dtype == torch.float32
    assert labels.tolist() == [0, 0] and latents[3][1] == 1 and len(latents) == 5
    assert latents.class_names == ("china", "flower") and latents.skipped == ()
    for side, x in enumerate((data.images[[4, 0]], data.images[[4, 0]].flip(-1))):
        wanted = codec.moments(x)
        assert relative(moments[:, side], wanted) < 1e-3, "half precision"
    assert relative(moments[:, 1, 0], moments[:, 0, 0].flip(-1)) > 0.1, "not the latents, mirrored"


def test_half_precision_error_is_below_the_least_noise(tmp_path):
    vae, data = LinearVAE(scaling_factor=20.0), linear_image_set(5)
    latents = encode_images(data, LatentCodec(vae), tmp_path / "z", progress=False)
    mean = LatentCodec(vae).moments(data.images)[:, 0]
    assert mean.std() > 0.5
    error = latents.get_batch(range(5))[0][:, 0, 0] - mean
    assert error.std() < 0.05 * (1 - Diffusion().alphas_cumprod[0]) ** 0.5


def test_datasets_can_read_the_folder(tmp_path):
    import datasets

    encode_images(linear_image_set(5), LatentCodec(LinearVAE()), tmp_path / "z", shard_size=2, progress=False)
    rows = datasets.load_from_disk(str(tmp_path / "z"))
    assert rows.num_rows == 5 and rows.features["label"].names == ["china", "flower"]
    assert len(rows[0]["moments"]) == 4 * CHANNELS * 4 * 6
    assert len(rows.cache_files) == 3, "mapped where they lie, not copied"


def test_images_without_classes(tmp_path):
    data = ImageSet(linear_images(3), torch.zeros(3, dtype=torch.long), ("all",))
    object.__setattr__(data, "class_names", ())
    latents = encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    assert latents.class_names == () and latents.get_batch([2])[1].tolist() == [0]


def test_training_samples_again_in_each_step(tmp_path):
    from dit_nb.training import Trainer

    latents = encode_images(
        linear_image_set(6, width=8), LatentCodec(LinearVAE()), tmp_path / "z", progress=False
    )
    seen = []

    def spy(moments, flip, noise):
        seen.append((flip.clone(), noise.clone()))
        return sample_latents(moments, flip, noise)

    latents.sample_latents = spy
    torch.manual_seed(0)
    model = DiT(DiTConfig(4, 2, CHANNELS, 16, 1, 2, num_classes=2))
    config = TrainConfig(steps=6, batch_size=4, lr=1e-2, flip=True, precision="fp32")
    trainer = Trainer(model, Diffusion(), latents, config)
    trainer.fit(progress=False)
    losses = trainer.progress.history["loss"]
    assert len(losses) == 6 and all(np.isfinite(losses))
    assert all(not torch.equal(a[1], b[1]) for a, b in zip(seen, seen[1:])), "noise is new each step"
    flips = torch.cat([flip for flip, _ in seen])
    assert flips.any() and not flips.all()
    assert seen[0][1].shape == (4, CHANNELS, 4, 4) and abs(torch.stack([n for _, n in seen]).std() - 1) < 0.1


# Shards, and interrupted runs


class FailingImages(ImageSet):
    """Images of which one raises an error when it is read in a small batch."""

    def get_batch(self, indices):
        if 5 in indices and len(indices) < 4:
            raise RuntimeError("power cut")
        return super().get_batch(indices)


def shards(folder):
    return sorted(path.name for path in folder.glob("data-*.arrow"))


def encode_share(data, out, rank, world, codec=None, **changes):
    """Write the shards of one process of several."""
    codec = codec or LatentCodec(LinearVAE())
    plan = {**_plan_latents(data, codec, shard_size=2), **changes}
    work = _begin_latents(out, plan)
    _encode_shards(data, codec, work, plan, rank, world, batch_size=2, progress=False)
    return work, plan


def assert_same(one, other):
    a, b = (latents.get_batch(range(len(latents))) for latents in (one, other))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_resumed_by_another_number_of_processes(tmp_path):
    data = linear_image_set(11)
    straight = encode_images(data, LatentCodec(LinearVAE()), tmp_path / "a", 2, shard_size=2, progress=False)
    failing = FailingImages(data.images, data.labels, data.class_names)
    with pytest.raises(RuntimeError, match="power cut"):
        encode_share(failing, tmp_path / "b", 0, 1)
    work = _work_folder(tmp_path / "b")
    assert shards(work) == ["data-00000-of-00006.arrow", "data-00001-of-00006.arrow"]
    assert list(work.glob(".*tmp")) == [] and not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="latents folder .*not finished"):
        open_latents(tmp_path / "b")
    kept = {path: path.stat().st_mtime_ns for path in work.glob("*.arrow")}
    for rank in (2, 0, 1):
        work, plan = encode_share(data, tmp_path / "b", rank, 3)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished shards are kept"
    _finish_latents(work, tmp_path / "b", plan)
    assert not work.exists()
    assert_same(open_latents(tmp_path / "b"), straight)


def test_each_process_writes_its_own_shards(tmp_path):
    data, seen = linear_image_set(11), []
    for rank in range(3):
        work, _ = encode_share(data, tmp_path / "z", rank, 3)
        seen.append(set(shards(work)) - set().union(*seen))
    numbers = [[int(name[5:10]) for name in sorted(new)] for new in seen]
    assert numbers == [[0, 3], [1, 4], [2, 5]]


def test_a_partial_shard_is_written_again(tmp_path):
    data = linear_image_set(5)
    work = _begin_latents(tmp_path / "z", _plan_latents(data, LatentCodec(LinearVAE()), 2))
    (work / ".data-00000-of-00003.arrow.tmp").write_bytes(b"half of")  # as after SIGKILL
    latents = encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", shard_size=2, progress=False)
    assert len(latents) == 5 and list((tmp_path / "z").glob(".*")) == []


def test_a_full_disk_keeps_finished_shards(tmp_path, monkeypatch):
    left = [1]

    def full_disk(path, batches, plan):
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        _write_shard(path, batches, plan)

    monkeypatch.setattr(latent_cache, "_write_shard", full_disk)
    call = (linear_image_set(5), LatentCodec(LinearVAE()), tmp_path / "z")
    with pytest.raises(ValueError, match="No space left on device"):
        encode_images(*call, shard_size=2, progress=False)
    monkeypatch.setattr(latent_cache, "_write_shard", _write_shard)
    assert len(shards(_work_folder(tmp_path / "z"))) == 1
    assert len(encode_images(*call, shard_size=2, progress=False)) == 5


def test_a_failed_write_leaves_no_file(tmp_path):
    data = linear_image_set(2)
    plan = _plan_latents(data, LatentCodec(LinearVAE()))

    def batches():
        yield torch.zeros(1, 2, 2, CHANNELS, 4, 6).half(), torch.tensor([0])
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        _write_shard(tmp_path / "data-0.arrow", batches(), plan)
    assert list(tmp_path.iterdir()) == []


def test_a_file_size_limit(tmp_path):
    resource = pytest.importorskip("resource")
    call = (linear_image_set(40), LatentCodec(LinearVAE()), tmp_path / "z")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limit[1]))  # bytes in one file: a shard has more
    try:
        with pytest.raises(ValueError, match="File too large"):
            encode_images(*call, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in _work_folder(tmp_path / "z").iterdir()] == ["latents.json"]
    assert len(encode_images(*call, progress=False)) == 40


# Errors


@pytest.mark.parametrize(
    "what, named",
    [
        ("vae", "vae .* has fingerprint "),
        ("scale", r"vae .* has scale 1\.0, .* 0\.25"),
        ("size", r"image_shape is \[3, 16, 12\], .*\[3, 8, 12\]"),
        ("data", "image_hash is "),
        ("labels", "image_hash is "),
        ("count", "images is 7, .* 6"),
        ("classes", "class_names is .*rose.*flower"),
        ("dtype", "dtype is bfloat16, .*float32"),
    ],
)
def test_another_plan_is_refused(tmp_path, what, named):
    data, codec = linear_image_set(6), LatentCodec(LinearVAE())
    encode_share(data, tmp_path / "z", 0, 2)
    vae = LinearVAE()
    vae.matrix.data[0, 0] += 1
    data = {
        "size": linear_image_set(6, height=16),
        "data": linear_image_set(6, seed=1),
        "labels": ImageSet(data.images, 1 - data.labels, data.class_names),
        "count": linear_image_set(7),
        "classes": linear_image_set(6, ("china", "rose")),
    }.get(what, data)
    codec = {
        "vae": LatentCodec(vae),
        "scale": LatentCodec(LinearVAE(), 1.0),
        "dtype": LatentCodec(LinearVAE(), dtype=torch.bfloat16),
    }.get(what, codec)
    before = shards(_work_folder(tmp_path / "z"))
    with pytest.raises(ValueError, match=f"^{named}"):
        encode_share(data, tmp_path / "z", 1, 2, codec)
    assert shards(_work_folder(tmp_path / "z")) == before


def without(name):
    return lambda plan: {key: value for key, value in plan.items() if key != name}


DAMAGED = {
    "empty": b"",
    "cut": b'{"images": 6,',
    "a list": b"[]",
    "null": b"null",
    "no text": b"\xff\xfe\0",
    "deep": b"[" * 100_000,
    "no autoencoder": without("vae"),
    "no number": without("images"),
    "a vae that is text": lambda plan: {**plan, "vae": "text"},
    "a shape of text": lambda plan: {**plan, "latent_shape": ["a", "b", "c"]},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_description_of_an_interrupted_run(tmp_path, content):
    data = linear_image_set(6)
    encode_share(data, tmp_path / "z", 0, 2)
    work = _work_folder(tmp_path / "z")
    path, before = work / "latents.json", shards(work)
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps(content(json.loads(path.read_text()))).encode()
    )
    with raises_input_error(f"{path}.*: remove {work} to encode from the start"):
        encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", shard_size=2, progress=False)
    assert shards(work) == before


def test_an_existing_folder_is_not_overwritten(tmp_path):
    data, codec = linear_image_set(3), LatentCodec(LinearVAE())
    first = encode_images(data, codec, tmp_path / "z", progress=False)
    with pytest.raises(ValueError, match="out folder .*z"):
        encode_images(linear_image_set(3, seed=5), codec, tmp_path / "z", progress=False)
    assert_same(open_latents(tmp_path / "z"), first)


def test_shards_are_counted(tmp_path):
    data = linear_image_set(5)
    work, plan = encode_share(data, tmp_path / "z", 0, 1)
    first, *_ = sorted(work.glob("*.arrow"))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="latents file .*data-00000"):
        _finish_latents(work, tmp_path / "z", plan)
    _write_shard(first, iter([(torch.zeros(1, 2, 2, CHANNELS, 4, 6).half(), torch.tensor([0]))]), plan)
    with pytest.raises(ValueError, match="1 images.* 2"):
        _finish_latents(work, tmp_path / "z", plan)
    first.unlink()
    with pytest.raises(ValueError, match="latents file .*data-00000"):
        _finish_latents(work, tmp_path / "z", plan)
    assert not (tmp_path / "z").exists()


def test_open_latents_errors(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        open_latents(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="latents folder"):
        open_latents(tmp_path)
    encode_images(linear_image_set(3), LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    (tmp_path / "z" / "state.json").unlink()
    with pytest.raises(ValueError, match="latents folder .*z"):
        open_latents(tmp_path / "z")


def test_infinite_latents_raise(tmp_path):
    data = linear_image_set(3)
    data.images[1, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="images 1 to 1 .*NaN"):
        encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", batch_size=1, progress=False)


def test_images_that_do_not_fit_make_no_folder(tmp_path):
    data = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 0]), ("all",))
    with pytest.raises(ValueError, match="images is"):
        encode_images(data, LatentCodec(LinearVAE()), tmp_path / "z", progress=False)
    assert list(tmp_path.iterdir()) == []
