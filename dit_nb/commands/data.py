"""Data of the commands: the images or latents that the options name, their parts, and what to print about them."""

import re

import torch

from dit_nb.batches import _find_attribute
from dit_nb.commands.options import Encode, Train
from dit_nb.data import emoji
from dit_nb.distributed import _process_state, _raise_on_all_ranks
from dit_nb.errors import UserError
from dit_nb.image_check import _Ranks
from dit_nb.image_files import _BUNDLED, open_images
from dit_nb.image_streams import open_stream
from dit_nb.subsets import _data_labels, balance_classes, hold_out

__all__ = []

_SHOWN_CLASSES = 8  # up to so many, all are printed


def _parse_size(text: str | None) -> int | tuple[int, int] | None:
    "Read an image size: 256, or 32x48 for a height of 32 and a width of 48."
    if text is None:
        return None
    numbers = re.fullmatch(r"(\d+)(?:[x,](\d+))?", text.strip())
    if not numbers or not all(int(number or 1) for number in numbers.groups()):
        raise UserError(
            f"image_size is {text}, but must be a side such as 256, or HEIGHTxWIDTH such as 32x48."
        )
    height, width = numbers.groups()
    return (int(height), int(width)) if width and width != height else int(height)


def _ranks() -> _Ranks:
    "The processes at hand, which share the reading."
    state = _process_state()
    if state.num_processes == 1:
        return _Ranks()
    from accelerate.utils import gather_object

    gather = lambda value: gather_object([value])  # noqa: E731
    return _Ranks(state.process_index, state.num_processes, gather, _raise_on_all_ranks)


def _open_data(options: Train):
    """Open the data set of images or latents to train on, and the held-out one, or None. All ranks must call this."""
    if options.val_fraction and options.val_split:
        raise UserError(
            f"val_fraction is {options.val_fraction}, but must not be given together with val_split."
        )
    if options.latents is not None:
        data = _open_latents(options)
    else:
        data = _open_images(options, options.split)
    held_out = None
    if getattr(data, "streamed", False) and (options.val_fraction or options.balanced):
        name = "val_fraction" if options.val_fraction else "balanced"
        raise UserError(
            f"{name} is set, but a stream has no random access: use val_split, or unpack the data."
        )
    if options.val_fraction:
        data, held_out = hold_out(data, options.val_fraction, options.training.seed)
    elif options.val_split:
        held_out = _open_images(options, options.val_split)
        _check_same_classes(data, held_out)
    if held_out is not None and hasattr(inner := getattr(held_out, "dataset", held_out), "center_cropped"):
        if held_out is inner:
            held_out = inner.center_cropped()
        else:
            held_out.dataset = inner.center_cropped()
    return balance_classes(data) if options.balanced else data, held_out


def _open_latents(options: Train):
    from dit_nb.latent_cache import open_latents

    changed = {
        name: getattr(options, name)
        for name in ("image_size", "split", "class_folder", "label_column", "val_split")
    }
    changed |= {"crop": None if options.crop == "center" else options.crop}
    changed |= {"categories": options.categories[0] if options.categories else None}
    for name, value in changed.items():
        if value is not None:
            raise UserError(
                f"{name} is {value}, but must not be given with latents: give it to dit-nb encode."
            )
    return open_latents(options.latents)


def _open_images(options: Train, split: str | None):
    if options.data not in _BUNDLED and options.image_size is None:
        raise UserError("image_size is missing: give the side to crop images to, in pixels, or HEIGHTxWIDTH.")
    if options.categories and options.data != "emoji":
        raise UserError(
            f"categories is {options.categories[0]}, but must not be given for {options.data}: "
            "emoji have some."
        )
    names = {name: getattr(options, name) for name in ("crop", "class_folder", "label_column")}
    names["captions"] = options.texts.captions and (options.texts.caption_column or True)
    size = _parse_size(options.image_size)
    data = _open_source(options.data, size, options.channels, options.skip_bad, split=split, **names)
    return emoji(options.categories).train if options.categories else data


def _open_images_to_encode(options: Encode, channels: int):
    "Open the images to encode. All ranks must call this."
    size = _parse_size(options.image_size) or (None if options.images in _BUNDLED else 256)
    names = {name: getattr(options, name) for name in ("split", "class_folder", "label_column")}
    return _open_source(options.images, size, channels, options.skip_bad, **names)


def _open_source(source: str, size, channels: int, skip_bad: bool, **names):
    "Open a folder, a data set of the Hub, digits, or a stream."
    if not source.startswith("stream:"):
        return open_images(source, size, channels, skip_bad, ranks=_ranks(), **names)
    if (rule := names.pop("class_folder")) is not None:
        raise UserError(f"class_folder is {rule}, but a stream has no folders of classes.")
    if names.pop("captions", False):
        raise UserError("captions is True, but must not be given for a stream: unpack it into a folder.")
    return open_stream(source.removeprefix("stream:"), size, channels, skip_bad, ranks=_ranks(), **names)


def _check_same_classes(data, held_out) -> None:
    ours, theirs = (list(_find_attribute(part, "class_names") or ()) for part in (data, held_out))
    if ours != theirs:
        raise UserError(
            f"val_split has the classes {theirs[:5]}, but must have those of training, {ours[:5]}."
        )


# What is printed


def _describe_data(data, held_out=None, name: str = "", captions: str = "") -> str:
    """What the data hold, as lines of text: from where, images, size, channels, classes, what was left out.

    What is known of captions stands where otherwise the classes stand.
    """
    lines = [f"data: {_find_attribute(data, 'place') or name or type(data).__name__}"]
    lines.append(f"  {len(data):,} images of {_describe_shape(data)}" + _describe_repeats(data))
    lines.append(f"  {captions or _describe_classes(data)}")
    if held_out is not None:
        lines.append(f"  {len(held_out):,} held-out images, for the validation loss")
    lines += [f"  left out: {note}" for note in _find_attribute(data, "notes") or ()]
    if skipped := _find_attribute(data, "skipped"):
        lines.append(f"  left out: skipped {len(skipped):,} unreadable images: {' '.join(skipped[:3])}")
    return "\n".join(lines)


def _describe_shape(data) -> str:
    shape = _find_attribute(data, "shape") or data[0][0].shape[-3:]
    kind = " of latents" if _find_attribute(data, "sample_latents") is not None else ""
    return f"{shape[0]} channel{'s' if shape[0] > 1 else ''}{kind}, {shape[1]}x{shape[2]}"


def _describe_repeats(data) -> str:
    "How many images there are without repeats, if some are repeated to balance classes."
    indices = getattr(data, "indices", None)
    distinct = len(data) if indices is None else len(set(indices))
    return "" if distinct == len(data) else f", {distinct:,} of them different: classes are balanced"


def _describe_classes(data) -> str:
    "Number of classes, and their counts: all of them if they are few, else the smallest and the largest."
    names, labels = tuple(_find_attribute(data, "class_names") or ()), _data_labels(data)
    if not names:
        return "no classes"
    head = f"{len(names):,} class{'es' if len(names) > 1 else ''}"
    counts = (
        _find_attribute(data, "counts") if labels is None else torch.bincount(labels, minlength=len(names))
    )
    if counts is None:  # of a stream whose description has the classes
        return f"{head}, whose counts are unknown: the images are not counted before they are read"
    counts = torch.as_tensor(counts).tolist()
    if len(names) <= _SHOWN_CLASSES:
        return f"{head}: " + ", ".join(f"{name} {count:,}" for name, count in zip(names, counts))
    (few, least), (most, largest) = (by(zip(counts, names)) for by in (min, max))
    return f"{head}: the smallest has {few:,} images ({least}), the largest {most:,} ({largest})"
