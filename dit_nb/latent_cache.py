"""Latents of a data set on disk: writing them as Arrow shards, resumably and by several processes, and reading them.

A row holds the posterior's mean and standard deviation of an image and of its mirror image, in half precision, so
that each training step can sample latents and flips again. Shards are complete or absent: each is written under a
temporary name, all in a hidden folder that gets its name when every shard has been counted.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dit_nb.batches import BatchReader, _as_index
from dit_nb.errors import UserError
from dit_nb.latents import LatentCodec, _check_same_codec, sample_latents
from dit_nb.utils import _identity, _progress_bar, _read_json_object, _write_text

__all__ = ["LatentImages", "encode_images", "open_latents"]

_DESCRIPTION = "latents.json"
_SHARD_SIZE = 512  # images in one file


# Reading


class LatentImages:
    """Data set of latents on disk, read when they are asked for. Made by `open_latents`.

    Attributes: `vae` (description of the autoencoder), `class_names` (tuple), `labels` (N,) or None without classes,
    `shape` (C, h, w), `fingerprint` (hash of a few of the images).
    """

    sample_latents = staticmethod(sample_latents)

    def __init__(self, rows, facts: dict):
        self.rows, self.vae, self.skipped = rows.with_format("torch"), facts["vae"], ()
        self.fingerprint = facts["image_hash"]
        self.class_names, self.shape = tuple(facts["class_names"]), tuple(facts["latent_shape"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Tensor | None:
        "Labels of all images, (N,) long; None without classes."
        return self.rows.with_format("torch")["label"][:] if self.class_names else None

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        moments, labels = self.get_batch([_as_index(i, len(self))])
        return moments[0], labels[0]

    def get_batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        "Moments (B, 2, 2, C, h, w), see `sample_latents`, and labels (B,) of a batch."
        rows = self.rows[indices]
        return rows["moments"].float().view(-1, 2, 2, *self.shape), rows["label"]


def open_latents(folder: str | Path) -> LatentImages:
    """Open latents to train on. They are memory-mapped, so that opening is quick however many there are.

    Args:
        folder: folder that `encode_images` made

    Raises:
        UserError: if the folder does not exist, is not finished, or cannot be read
    """
    import datasets

    folder = Path(folder)
    if _work_folder(folder).is_dir() and not folder.is_dir():
        raise UserError(f"latents folder {folder} is not finished: encode the same images again to resume.")
    if not (folder / _DESCRIPTION).is_file():
        kind = "holds no latents" if folder.is_dir() else "does not exist"
        raise UserError(f"latents folder {folder} {kind}: make one with dit-nb encode.")
    facts = _read_facts(folder / _DESCRIPTION)
    try:
        rows = datasets.load_from_disk(str(folder))
        numbers = rows.features["moments"].length
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise UserError(f"latents folder {folder} cannot be read ({type(error).__name__}).") from None
    if numbers != 4 * math.prod(facts["latent_shape"]):
        raise UserError(f"latents folder {folder} holds latents of another shape than {_DESCRIPTION} says.")
    if len(rows) != facts["images"]:
        raise UserError(f"latents folder {folder} holds {len(rows)} of its {facts['images']} images.")
    return LatentImages(rows, facts)


_FACTS = {"images": int, "class_names": list, "latent_shape": list, "image_hash": str, "vae": dict}


def _read_facts(path: Path) -> dict:
    "Read the description of latents, or raise a UserError if it is damaged."
    facts = _read_json_object(path)
    for name, kind in _FACTS.items():
        if not isinstance(facts.get(name), kind):
            raise UserError(f"{path} lacks {name}, or it is damaged.")
    if not all(isinstance(side, int) for side in facts["latent_shape"]) or len(facts["latent_shape"]) != 3:
        raise UserError(f"{path} has latent_shape {facts['latent_shape']}, but must have three integers.")
    return facts


# Writing


def encode_images(
    data,
    codec: LatentCodec,
    out: str | Path,
    batch_size: int = 32,
    num_workers: int = 0,
    shard_size: int = _SHARD_SIZE,
    rank: int = 0,
    world_size: int = 1,
    on_all_ranks: Callable = nullcontext,
    progress: bool = True,
) -> LatentImages:
    """Encode all images and their mirror images into a folder. An interrupted run is resumed by the same call.

    Args:
        data: data set of images: `len(data)`, `data.class_names`, and `data[i]`, which returns
            images and labels; for instance from `open_images`
        codec: the autoencoder
        out: folder to make; it must not exist, unless it is empty
        batch_size: images that are encoded at a time
        num_workers: processes that load images; 0 for none but this one
        shard_size: images in one file
        rank: number of this process, from 0
        world_size: number of processes, each of which writes its share of the shards
        on_all_ranks: context manager that raises an error of one process in all, from `dit_nb.distributed`
        progress: show a progress bar

    Raises:
        UserError: if `out` exists, if an interrupted run had other settings, or if the disk is full
    """
    out = Path(out).resolve()
    with on_all_ranks(), _explain_disk_errors(out):
        plan = _plan_latents(data, codec, shard_size)
        work = _begin_latents(out, plan)
        _encode_shards(data, codec, work, plan, rank, world_size, batch_size, num_workers, progress)
    with on_all_ranks(), _explain_disk_errors(out):
        if rank == 0:
            _finish_latents(work, out, plan)
    return open_latents(out)


@contextmanager
def _explain_disk_errors(out: Path):
    "Turn the error of a full disk, and the like, into one that says that nothing is lost."
    try:
        yield
    except OSError as error:
        raise UserError(
            f"encoding into {out} stopped: {error}. Finished files are kept: run the same again to resume."
        ) from None


def _work_folder(out: Path) -> Path:
    "Folder of the latents until they are complete."
    out = Path(out).resolve()
    return out.with_name(f".unfinished-{out.name}")


def _plan_latents(data, codec: LatentCodec, shard_size: int = _SHARD_SIZE) -> dict:
    "Description of the latents, as JSON. A run can be resumed only with the same description."
    if not len(data):
        raise UserError("data is empty, but encoding needs at least one image.")
    spots = sorted({round(i * (len(data) - 1) / 7) for i in range(8)})
    if getattr(data, "streamed", False):  # read in order: the last image is far away
        spots = list(range(min(8, len(data))))
    images, labels = BatchReader(data)(spots)
    codec.check_images(images)
    sides = [side // codec.downsampling for side in images.shape[-2:]]
    content = images.float().numpy().tobytes() + labels.numpy().tobytes()
    return {
        "images": len(data),
        "image_shape": list(images.shape[1:]),
        "class_names": list(data.class_names),
        "image_hash": hashlib.sha256(content).hexdigest()[:16],  # of up to 8 images
        "latent_shape": [codec.channels, *sides],
        "shard_size": shard_size,
        "dtype": str(codec.dtype).removeprefix("torch."),
        "vae": codec.describe(),
    }


def _begin_latents(out: Path, plan: dict) -> Path:
    "Make the work folder, or find the one of an interrupted run and check that its plan was the same."
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out folder {out} exists: choose another, or remove it.")
    work = _work_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / _DESCRIPTION).exists():
        _write_text(work / _DESCRIPTION, json.dumps(plan, indent=1))  # every process may; all write the same
    try:
        begun = _read_facts(work / _DESCRIPTION)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}: remove {work} to encode from the start.") from None
    for name in [name for name in plan if name != "vae"]:
        if plan[name] != begun.get(name):
            raise UserError(
                f"{name} is {plan[name]}, but {work} was begun with {begun.get(name)}: resume with the same, or "
                "remove it."
            )
    _check_same_codec(plan["vae"], begun["vae"], work)
    return work


def _shards(work: Path, plan: dict) -> list[tuple[Path, range]]:
    "Each shard's file and the images in it: the same for any number of processes."
    n, size = plan["images"], plan["shard_size"]
    count = math.ceil(n / size)
    return [
        (work / f"data-{i:05d}-of-{count:05d}.arrow", range(i * size, min((i + 1) * size, n)))
        for i in range(count)
    ]


def _encode_shards(
    data,
    codec: LatentCodec,
    work: Path,
    plan: dict,
    rank: int = 0,
    world_size: int = 1,
    batch_size: int = 32,
    num_workers: int = 0,
    progress: bool = True,
) -> None:
    "Write this process's share of the shards, except those that exist."
    todo = [(path, list(rows)) for path, rows in _shards(work, plan)[rank::world_size] if not path.exists()]
    parts = [[rows[i : i + batch_size] for i in range(0, len(rows), batch_size)] for _, rows in todo]
    loader = DataLoader(
        BatchReader(data), batch_sampler=sum(parts, []), collate_fn=_identity, num_workers=num_workers
    )
    total = sum(len(rows) for _, rows in todo)
    with _progress_bar(desc="encoding", shown=progress and rank == 0, total=total) as bar:
        batches = iter(loader)
        for (path, _), part in zip(todo, parts):
            _write_shard(path, (_encode_with_mirror(codec, next(batches), rows, bar) for rows in part), plan)


def _encode_with_mirror(
    codec: LatentCodec, batch: tuple[Tensor, Tensor], rows: list[int], bar
) -> tuple[Tensor, Tensor]:
    "Moments (B, 2, 2, C, h, w) of images and of their mirror images in half precision, and the labels (B,)."
    images, labels = batch
    moments = torch.stack([codec.moments(x) for x in (images, images.flip(-1))], dim=1).half()
    if not moments.isfinite().all():
        raise UserError(f"latents of images {rows[0]} to {rows[-1]} hold NaN or infinity.")
    bar.update(len(rows))
    return moments, labels


def _arrow_features(plan: dict):  # datasets.Features
    "Columns: moments, flat, in half precision; labels with their class names."
    from datasets import ClassLabel, Features, List, Value

    names, size = plan["class_names"], 4 * math.prod(plan["latent_shape"])
    label = ClassLabel(names=names) if names else Value("int64")
    return Features({"moments": List(Value("float16"), length=size), "label": label})


def _write_shard(path: Path, batches: Iterator[tuple[Tensor, Tensor]], plan: dict) -> None:
    "Write moments and labels to an Arrow file, which is complete or absent."
    import pyarrow as pa

    schema, draft = _arrow_features(plan).arrow_schema, path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for moments, labels in batches:
                flat = pa.array(moments.flatten().numpy())
                rows = pa.FixedSizeListArray.from_arrays(flat, moments[0].numel())
                writer.write_batch(pa.record_batch([rows, pa.array(labels.numpy())], schema=schema))
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)  # a full disk gets its space back
        raise


def _finish_latents(work: Path, out: Path, plan: dict) -> None:
    "Count the rows of every shard, write the metadata of `datasets`, and rename the work folder to `out`."
    from datasets import Dataset, DatasetInfo

    shards = _shards(work, plan)
    for path, images in shards:
        try:
            found = len(Dataset.from_file(str(path)))
        except Exception as error:  # missing, or not Arrow
            raise UserError(f"latents file {path} cannot be read ({type(error).__name__}).") from None
        if found != len(images):
            raise UserError(
                f"latents file {path} holds {found} images, but must hold {len(images)}: remove it."
            )
    DatasetInfo(features=_arrow_features(plan)).write_to_directory(str(work))
    state = {
        "_data_files": [{"filename": path.name} for path, _ in shards],
        "_fingerprint": plan["image_hash"],
        **{"_format_type": None, "_format_kwargs": {}, "_format_columns": None},
        **{"_output_all_columns": False, "_split": None},
    }
    _write_text(work / "state.json", json.dumps(state, indent=1))
    os.replace(work, out)
