"""Diffusion in the space of an autoencoder: two hundred times less work, a scale that must not be forgotten, and a cache that keeps its dice."""

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
from tqdm.auto import tqdm

from dit_nb.latents import LatentCodec, same_latents, sample_latents
from dit_nb.utils import as_is, show_bar

FACTS = "latents.json"


def work_folder(
    out: Path,  # where the latents will be
) -> Path:
    "Where they are until they are complete."
    out = Path(out).resolve()
    return out.with_name(f".unfinished-{out.name}")


class LatentImages:
    "Latents on disk, as a data set. Made by `open_latents`."

    sample_latents = staticmethod(sample_latents)

    def __init__(
        self,
        rows,  # a datasets.Dataset with moments and label
        facts: dict,  # what latents.json holds
    ):
        self.rows, self.vae, self.skipped = rows.with_format("torch"), facts["vae"], ()
        self.class_names, self.shape = tuple(facts["class_names"]), tuple(facts["latent_shape"])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        moments, labels = self.__getitems__([i])
        return moments[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        "Moments (N, 2, 2, C, h, w) and labels (N,) of a whole batch."
        rows = self.rows[indices]
        return rows["moments"].float().view(-1, 2, 2, *self.shape), rows["label"]


def open_latents(
    folder: str | Path,  # what `encode_images` made
) -> LatentImages:
    "Latents to train on; they stay on disk, and are read as they are needed."
    import datasets

    folder = Path(folder)
    if work_folder(folder).is_dir() and not folder.is_dir():
        raise ValueError(f"latents folder {folder} is not finished: encode the same images again, to go on.")
    if not (folder / FACTS).is_file():
        kind = "holds no latents" if folder.is_dir() else "does not exist"
        raise ValueError(f"latents folder {folder} {kind}: dit-nb encode makes one.")
    facts = json.loads((folder / FACTS).read_text())
    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise ValueError(f"latents folder {folder} cannot be read ({type(error).__name__}).") from None
    if len(rows) != facts["images"]:
        raise ValueError(f"latents folder {folder} holds {len(rows)} of its {facts['images']} images.")
    return LatentImages(rows, facts)


SHARD = 512  # images in one file


def plan_latents(
    data,  # images: len(), class_names, __getitems__
    codec: LatentCodec,
    shard_size: int = SHARD,
) -> dict:  # as JSON
    "All that a folder of latents is begun with; whoever goes on with it must plan the same."
    if not len(data):
        raise ValueError("data is empty, but encoding needs at least one image.")
    spots = sorted({round(i * (len(data) - 1) / 7) for i in range(8)})
    images, labels = data.__getitems__(spots)
    codec.check_images(images)
    sides = [side // codec.downsampling for side in images.shape[-2:]]
    look = images.float().numpy().tobytes() + labels.numpy().tobytes()
    return {
        "images": len(data),
        "image_shape": list(images.shape[1:]),
        "class_names": list(data.class_names),
        "a few of the images": hashlib.sha256(look).hexdigest()[:16],
        "latent_shape": [codec.channels, *sides],
        "images in a file": shard_size,
        "dtype": str(codec.dtype).removeprefix("torch."),
        "vae": codec.describe(),
    }


def begin_latents(
    out: Path,
    plan: dict,  # from `plan_latents`
) -> Path:  # the folder to work in
    "Begin a folder of latents, or find the one that was begun. Raises ValueError where it is not the same."
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out folder {out} is there already: choose another, or remove it.")
    work = work_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    if not (work / FACTS).exists():
        draft = work / f".{FACTS}.{os.getpid()}"  # every process may begin; all write the same
        draft.write_text(json.dumps(plan, indent=1))
        os.replace(draft, work / FACTS)
    begun = json.loads((work / FACTS).read_text())
    for name in sorted(plan.keys() - {"vae"}):
        if plan[name] != begun.get(name):
            raise ValueError(
                f"{name} is {plan[name]}, but {work} was begun with {begun.get(name)}: go on with the same, "
                "or remove it."
            )
    same_latents(plan["vae"], begun["vae"], work)
    return work


def shard_path(
    work: Path,
    i: int,  # number of the shard
    plan: dict,
) -> tuple[Path, range]:  # its file, and the images in it
    "Where a shard lies and what it holds: the same for any number of processes."
    n, size = plan["images"], plan["images in a file"]
    count = math.ceil(n / size)
    return work / f"data-{i:05d}-of-{count:05d}.arrow", range(i * size, min((i + 1) * size, n))


def features(plan: dict):  # datasets.Features
    "The columns: half precision numbers, so many for each image, and labels with their names."
    from datasets import ClassLabel, Features, List, Value

    names, size = plan["class_names"], 4 * math.prod(plan["latent_shape"])
    label = ClassLabel(names=names) if names else Value("int64")
    return Features({"moments": List(Value("float16"), length=size), "label": label})


def write_shard(
    path: Path,
    batches: Iterator[tuple[Tensor, Tensor]],  # moments in half precision, and labels
    plan: dict,
) -> None:
    "Write a file of Arrow rows: it is there whole or not at all."
    import pyarrow as pa

    schema, draft = features(plan).arrow_schema, path.with_name(f".{path.name}.tmp")
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


def encode_shards(
    data,  # images
    codec: LatentCodec,
    work: Path,  # from `begin_latents`
    plan: dict,
    rank: int = 0,  # this process
    world: int = 1,  # processes that share the work
    batch_size: int = 32,  # images at a time
    workers: int = 0,  # processes that load images
    progress: bool = True,  # show a bar
) -> None:
    "Write this process's share of the shards, but those that are there."
    shards = [shard_path(work, i, plan) for i in range(math.ceil(plan["images"] / plan["images in a file"]))]
    todo = [(path, list(images)) for path, images in shards[rank::world] if not path.exists()]
    parts = [[rows[i : i + batch_size] for i in range(0, len(rows), batch_size)] for _, rows in todo]
    loader = DataLoader(data, batch_sampler=sum(parts, []), collate_fn=as_is, num_workers=workers)
    show = show_bar(progress and rank == 0)
    with tqdm(total=sum(len(rows) for _, rows in todo), desc="encoding", disable=not show) as bar:
        batches = iter(loader)
        for (path, _), part in zip(todo, parts):
            write_shard(path, (both_sides(codec, next(batches), rows, bar) for rows in part), plan)


def both_sides(
    codec: LatentCodec,
    batch: tuple[Tensor, Tensor],  # images and labels
    rows: list[int],  # their numbers
    bar,  # a tqdm bar, moved on by so many images
) -> tuple[Tensor, Tensor]:  # (N, 2, 2, C, h, w) in half precision, and labels
    "Moments of images and of their mirror images."
    images, labels = batch
    moments = torch.stack([codec.moments(x) for x in (images, images.flip(-1))], dim=1).half()
    if not moments.isfinite().all():
        raise ValueError(f"latents of images {rows[0]} to {rows[-1]} hold NaN or infinity.")
    bar.update(len(rows))
    return moments, labels


def finish_latents(
    work: Path,  # from `begin_latents`
    out: Path,
    plan: dict,
) -> None:
    "Count what is there, say how it belongs together, and publish the folder as a whole."
    from datasets import Dataset, DatasetInfo

    shards = [shard_path(work, i, plan) for i in range(math.ceil(plan["images"] / plan["images in a file"]))]
    for path, images in shards:
        try:
            found = len(Dataset.from_file(str(path)))
        except Exception as error:  # missing, or not Arrow
            raise ValueError(f"latents file {path} cannot be read ({type(error).__name__}).") from None
        if found != len(images):
            raise ValueError(
                f"latents file {path} holds {found} images, but must hold {len(images)}: remove it."
            )
    DatasetInfo(features=features(plan)).write_to_directory(str(work))
    state = {
        "_data_files": [{"filename": path.name} for path, _ in shards],
        "_fingerprint": plan["a few of the images"],
    }
    state |= {
        "_format_type": None,
        "_format_kwargs": {},
        "_format_columns": None,
        "_output_all_columns": False,
    }
    (work / "state.json").write_text(json.dumps({**state, "_split": None}, indent=1))
    os.replace(work, out)


def encode_images(
    data,  # images: len(), class_names, __getitems__
    codec: LatentCodec,
    out: str | Path,  # folder to make; what a killed run left unfinished is gone on with
    batch_size: int = 32,  # images at a time
    workers: int = 0,  # processes that load images
    shard_size: int = SHARD,  # images in one file
    rank: int = 0,  # this process
    world: int = 1,  # processes that share the work
    together: Callable = nullcontext,  # what makes them wait for each other: `dit_nb.distributed.together`
    progress: bool = True,  # show a bar
) -> LatentImages:
    "Latents of all images and of their mirror images."
    out = Path(out).resolve()
    with together(), resumable(out):
        plan = plan_latents(data, codec, shard_size)
        work = begin_latents(out, plan)
        encode_shards(data, codec, work, plan, rank, world, batch_size, workers, progress)
    with together(), resumable(out):
        if rank == 0:
            finish_latents(work, out, plan)
    return open_latents(out)


@contextmanager
def resumable(out: Path):
    "Tell of a full disk, and the like, that nothing is lost."
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"encoding into {out} stopped: {error}. What is finished is kept: run the same again, to go on."
        ) from None
