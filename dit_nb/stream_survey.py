"""Number and classes of the images of a stream: as described, as counted before, or counted in one pass."""

import json
from collections import Counter

from dit_nb.errors import UserError
from dit_nb.image_check import _cache_folder, _Ranks
from dit_nb.image_tables import _number_classes
from dit_nb.shard_files import _check_shards
from dit_nb.stream_files import _Stream
from dit_nb.utils import _atomic_write, _progress_bar

__all__ = []


def _survey(stream: _Stream, ranks: _Ranks) -> dict:
    "Number of images, and classes with their counts: as described, as counted before, or counted now in one pass."
    if stream.known and (stream.declared or not stream.label_path):
        values = list(range(len(stream.declared)))
        return {"images": stream.known, "values": values, "class_names": stream.declared, "counts": None}
    found = ranks.gather(_load_cached(stream.state) if ranks.rank == 0 else None)[0]
    if found is None:
        with ranks.on_all_ranks():
            notes = _check_shards(stream.files) if ranks.rank == 0 else []
        found = _summary(stream, _count(stream, ranks)) | {"notes": ranks.gather(notes)[0]}
        if ranks.rank == 0:
            _save_cached(stream.state, found)
    return found


def _count(stream: _Stream, ranks: _Ranks) -> Counter:
    "Count the images of each class; each process reads its part."
    from datasets.distributed import split_dataset_by_node

    counts: Counter = Counter()
    with ranks.on_all_ranks():
        rows = split_dataset_by_node(stream.rows, ranks.rank, ranks.world_size)
        for row in _progress_bar(stream.read(rows), "counting images", ranks.rank == 0):
            counts[stream.label(row)] += 1
    return sum(ranks.gather(counts), Counter())


def _summary(stream: _Stream, counts: Counter) -> dict:
    values = list(counts)
    odd = [value for value in values if not _is_label(value, stream)]
    if odd and values != [None]:
        raise UserError(
            f"data {stream.place} has {counts[odd[0]]:,} images with the label {odd[0]}, but must have one class "
            "for each image: choose another split, or another column with label_column."
        )
    if stream.declared:
        values, names = list(range(len(stream.declared))), stream.declared
    elif values == [None]:
        values, names = [], ()
    else:
        labels, names = _number_classes(values)
        values = [value for _, value in sorted(zip(labels, values))]
    numbers = [counts[value] for value in values]
    return {"images": counts.total(), "values": values, "class_names": names, "counts": numbers}


def _is_label(value, stream: _Stream) -> bool:
    "Whether a value may be a class: one of those that are declared, or any that is not missing."
    declared = range(len(stream.declared))
    return value in declared if declared else value is not None


# What was counted before


def _load_cached(state: str) -> dict | None:
    "What was counted before; None if nothing was, or if the file is damaged."
    try:
        found = json.loads((_cache_folder() / f"stream-{state}.json").read_text())
        kinds = {"images": int, "values": list, "class_names": list, "counts": list}
        return found if all(isinstance(found[name], kind) for name, kind in kinds.items()) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _save_cached(state: str, found: dict) -> None:
    "Keep what was counted, if the disk allows."
    try:
        _cache_folder().mkdir(parents=True, exist_ok=True)
        with _atomic_write(_cache_folder() / f"stream-{state}.json") as draft:
            draft.write_text(json.dumps(found))
    except OSError:
        pass
