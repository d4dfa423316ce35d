"""Streams: WebDataset shards and data sets of the Hub that are read in order, by the library `datasets`.

A stream has no random access. Its order is a function of the seed and the step: shards and a buffer of images are
shuffled again in each epoch, and each process reads its own part. So a run that is resumed on as many processes gets
the same images; to find its place, it passes over the part of the epoch that is done, without decoding it.
"""

import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dit_nb.batches import _as_index, _Indices, _uniform
from dit_nb.errors import UserError
from dit_nb.image_check import _Ranks, _read_cell
from dit_nb.image_files import _crop_to
from dit_nb.shard_files import _short_hash
from dit_nb.stream_files import _open_rows, _Stream
from dit_nb.stream_survey import _survey

__all__ = ["ImageStream", "open_stream"]

_BUFFER = 1000  # images from which the next one is chosen at random


class ImageStream:
    """Data set of images that are read in order, in batches. Made by `open_stream`.

    `Trainer`, `encode_images` and `evaluate` take it; `num_workers` must be 0, because it reads and decodes in threads.
    With indices from `Batches` it returns the images of a training step; with plain indices, those of a pass in order.

    Attributes:
        class_names: K names, a tuple; empty if there are no classes
        place: where the images come from
        notes: what was left out, and what is not known
        fingerprint: a hash of the shards' names, sizes, starts and ends, and of what was counted
    """

    streamed, labels, skipped = True, None, ()

    def __init__(
        self, stream: _Stream, survey: dict, size, channels: int, crop: str, skip_bad: bool, ranks: _Ranks
    ):
        self.stream, self.images, self.class_names = stream, survey["images"], tuple(survey["class_names"])
        self.numbers = {value: k for k, value in enumerate(survey["values"])}
        self.place, self.counts = stream.place, survey["counts"]
        self.notes = (*stream.notes, *survey.get("notes", ()))
        self.size, self.mode = (
            (size, size) if isinstance(size, int) else tuple(size),
            {1: "L", 3: "RGB"}[channels],
        )
        self.crop, self.skip_bad, self.ranks = crop, skip_bad, ranks
        self.fingerprint = _short_hash(stream.fingerprint, sorted(survey.items()))
        self._readers = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        self._ahead, self._waiting = ThreadPoolExecutor(1), None
        self._in_order, self._shuffled = _Cursor(self._pass), {}

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if isinstance(i, int) and i < 0:
            raise UserError(f"index is {i}, but must be 0 or more for a stream, which is read in order.")
        images, labels = self.get_batch([_as_index(i, len(self))])
        return images[0], labels[0]

    def center_cropped(self) -> "ImageStream":
        "The same stream, always with the center crop."
        other = copy.copy(self)
        other.crop, other._in_order, other._shuffled, other._waiting = (
            "center",
            _Cursor(other._pass),
            {},
            None,
        )
        return other

    def get_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [-1, 1] and labels (B,) of a batch; all labels are 0 if there are no classes.

        Raises:
            UserError: if a worker process reads (`num_workers` above 0), or an image cannot be read
        """
        if get_worker_info() is not None:
            raise UserError(
                "num_workers is above 0, but must be 0 for a stream: it reads and decodes in threads."
            )
        if not isinstance(indices, _Indices):
            return self._decode([self._in_order.take(i, 1)[0] for i in indices], indices)
        key, self._waiting = self._waiting or (None, None), None
        wanted, following = indices.keys, [(a, b, step + 1, place) for a, b, step, place in indices.keys]
        batch = key[1].result() if key[0] == wanted else self._settle(key[1], wanted)
        self._waiting = (following, self._ahead.submit(self._train_batch, _Indices(indices, following)))
        return batch

    def _settle(self, pending: Future | None, wanted: list) -> tuple[Tensor, Tensor]:
        "Read a batch that was not expected, after the one that is being read ahead."
        if pending is not None:
            pending.exception()
        return self._train_batch(_Indices(range(len(wanted)), wanted))

    def _train_batch(self, indices: _Indices) -> tuple[Tensor, Tensor]:
        "The images of a training step: the next ones of this process's part of the shuffled stream."
        seed, _, step, _ = indices.keys[0]
        if seed not in self._shuffled:
            self._shuffled = {seed: _Cursor(lambda start: self._epochs(seed, start))}
        return self._decode(self._shuffled[seed].take(step * len(indices), len(indices)), indices)

    def _pass(self, start: int) -> Iterator[dict]:
        "The whole stream in order, from a position on."
        return itertools.islice(self.stream.read(self.stream.rows), start, None)

    def _epochs(self, seed: int, start: int) -> Iterator[dict]:
        "This process's part of the stream, epoch after epoch in a new order, from a position on."
        from datasets.distributed import split_dataset_by_node

        rows = self.stream.rows.shuffle(seed=seed, buffer_size=_BUFFER)
        rows = split_dataset_by_node(rows, self.ranks.rank, self.ranks.world_size)
        length = max(1, self.images // self.ranks.world_size)
        epoch, done = divmod(start, length)
        while True:
            rows.set_epoch(epoch)
            repeated = itertools.chain.from_iterable(self.stream.read(rows) for _ in itertools.count())
            yield from itertools.islice(repeated, done, length)
            epoch, done = epoch + 1, 0

    def _decode(self, rows: list[dict], indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        numbers = _uniform(indices, 3) if self.crop == "random" else [None] * len(rows)
        read = list(self._readers.map(self._read, rows, numbers))
        good = [image for image in read if isinstance(image, Tensor)]
        if len(good) < len(read) and not (self.skip_bad and good):
            raise UserError(f"{next(error for error in read if not isinstance(error, Tensor))}")
        labels = [self._number(row) for row in rows]
        for i, image in enumerate(read):  # an unreadable image is replaced by a good one of the batch
            if not isinstance(image, Tensor):
                j = next(
                    k % len(read)
                    for k in range(i + 1, i + len(read))
                    if isinstance(read[k % len(read)], Tensor)
                )
                read[i], labels[i] = read[j], labels[j]
        return torch.stack(read), torch.tensor(labels)

    def _number(self, row: dict) -> int:
        "The label of a row, as a number; 0 if there are no classes."
        value = self.stream.label(row)
        if value not in self.numbers and self.stream.label_path:
            raise UserError(
                f"image {self.stream.name(row)} has the class {value}, but must have one of the "
                f"{len(self.numbers)} classes that were found on opening: if the files have changed, open the "
                "stream again, else give every image a label."
            )
        return self.numbers.get(value, 0)

    def _read(self, row: dict, numbers: Tensor | None) -> Tensor | str:
        cell, name = row[self.stream.image], self.stream.name(row)
        if cell is None:
            return f"image {name} cannot be read: it is missing."
        try:
            return _crop_to(_read_cell(cell, name, self.size, self.mode), self.size, numbers)
        except UserError as error:
            return str(error)


class _Cursor:
    "A place in a sequence that can only be read forward: another start makes it begin again."

    def __init__(self, begin):
        self.begin, self.position = begin, None
        self.rows: Iterator[dict] = iter(())

    def take(self, start: int, count: int) -> list[dict]:
        "The rows from `start` on."
        if self.position is None or start < self.position:
            self.rows, self.position = self.begin(start), start
        rows = list(itertools.islice(self.rows, start - self.position, start - self.position + count))
        if len(rows) < count:
            raise UserError(
                f"index is {start + len(rows)}, but the stream ends before: it has fewer images than were counted."
            )
        self.position = start + count
        return rows


def open_stream(
    source: str | Path,
    size: int | tuple[int, int],
    channels: int = 3,
    skip_bad: bool = False,
    *,
    split: str | None = None,
    crop: str = "center",
    label_column: str | None = None,
    ranks: _Ranks = _Ranks(),  # noqa: B008
) -> ImageStream:
    """Open a stream of images. Its images are counted first, with their classes, unless its description has both.

    Args:
        source: folder of WebDataset shards (.tar) or of Parquet files, or a data set of the Hub:
            NAME, NAME:CONFIG, NAME@SPLIT, NAME:CONFIG@SPLIT
        size: side of the square crop in pixels, or (height, width)
        channels: 3 for RGB or 1 for gray
        skip_bad: replace images that cannot be read by others of the batch, instead of raising an error
        split: split to use; train by default
        crop: "center", or "random", see `open_images`
        label_column: column that holds the classes; a dot leads into a column of JSON, as in json.label
        ranks: the processes that share the stream

    Raises:
        UserError: if there are no images, or if an argument does not fit
    """
    with ranks.on_all_ranks():
        stream = _open_rows(str(source), split, label_column)
    return ImageStream(stream, _survey(stream, ranks), size, channels, crop, skip_bad, ranks)
