"""Captions in `dit-nb train`: what was found, the data set with ids, the model of texts, texts to sample."""

from collections import Counter
from dataclasses import replace
from textwrap import shorten
from typing import NamedTuple

import torch
from torch import Tensor

from dit_nb.commands.options import Captions, Train
from dit_nb.config import DiTConfig
from dit_nb.errors import UserError, _check_number
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from dit_nb.since.text import CaptionSet, Vocabulary, _may_mirror, caption_set, data_captions, split_words

__all__ = []

_LENGTHS = (16, 64)  # least and most words of a text, if the captions decide
_SHOWN = 8  # captions that are sampled during training


def _check_caption_options(options: Train) -> Train:
    "Refuse what does not fit captions, or needs them; with captions, the objective is flow."
    given = {k: v for k, v in vars(options.texts).items() if v != Captions.__dataclass_fields__[k].default}
    if not options.texts.captions:
        for name, value in given.items():
            shown = value[0] if isinstance(value, tuple) else value
            raise UserError(f"{name} is {shown}, but must not be given without captions.")
        return options
    _refuse(options)
    if options.texts.text_length is not None:
        _check_number("text_length", options.texts.text_length, int)
    _check_number("min_count", options.texts.min_count, int)
    _check_number("word_dropout", options.texts.word_dropout, float, positive=False)
    if options.texts.word_dropout >= 1:
        raise UserError(f"word_dropout is {options.texts.word_dropout}, but must be a number in [0, 1).")
    return replace(options, diffusion={**options.diffusion, "objective": "flow"})


def _refuse(options: Train) -> None:
    "Raise a UserError for an option that a model of texts cannot have."
    if options.latents is not None:
        raise UserError("captions is True, but latents have none: give the images themselves, with data.")
    if options.init_from is not None:
        raise UserError(
            f"init_from is {options.init_from}, but must not be given with captions: "
            "their model starts untrained."
        )
    wanted = {"block": "adaln_zero", "learn_sigma": False, "switches": ()}
    for name, value in options.shape.items():
        if value != wanted.get(name, value):
            raise UserError(f"{name} is {value}, but must not be given with captions.")
    objective = options.diffusion.get("objective", "flow")
    if objective != "flow":
        raise UserError(f"objective is {objective}, but must be flow with captions.")


class _Texts(NamedTuple):
    "The captions of the training images, and how a model of texts is trained on them."

    captions: list[str]
    vocabulary: Vocabulary
    length: int  # words of a text, L
    word_dropout: float
    mirrored: int | None  # number of images that get a mirror image; None without --flip
    prompts: list[str]  # texts to sample

    def describe(self) -> str:
        "Number of captions, words, and rare words; what is cut; what is mirrored; what is sampled."
        counts = Counter(word for text in self.captions for word in split_words(text))
        lengths = [len(split_words(text)) for text in self.captions]
        once = sum(count == 1 for count in counts.values())
        lines = [f"{len(lengths):,} captions of {min(lengths)} to {max(lengths)} words"]
        lines.append(f"{len(counts):,} different words, {once:,} of them only once")
        if (known := len(self.vocabulary.words)) < len(counts):
            lines[-1] += f", {known:,} of them often enough to be known"
        if cut := sum(length > self.length for length in lengths):
            lines.append(f"{cut:,} captions are cut to text_length, {self.length} words")
        if self.mirrored is not None:
            rest = len(lengths) - self.mirrored
            lines.append(f"{self.mirrored:,} of the images are mirrored, too")
            if rest:
                lines[-1] += f"; {rest:,} are not: their captions tell of a direction or letters"
        lines.append(
            "to sample: " + " | ".join(shorten(text, 40, placeholder="...") for text in self.prompts)
        )
        return "\n  ".join(lines)

    def data_sets(self, data, held_out) -> tuple[CaptionSet, CaptionSet | None]:
        "The data with ids, hidden words and mirror images; and the held-out ones with ids alone."
        rest = None if held_out is None else caption_set(held_out, self.vocabulary, self.length)
        mirror = self.mirrored is not None
        return caption_set(data, self.vocabulary, self.length, self.word_dropout, mirror), rest

    def build_model(self, config: DiTConfig) -> MMDiT:
        "An MM-DiT of the sizes of a DiT, whose text encoder has the same width."
        fields = {name: getattr(config, name) for name in DiTConfig.__dataclass_fields__}
        width = {"text_width": config.hidden_size, "pooled_width": config.hidden_size}
        words = {"vocabulary": self.vocabulary.words, "text_length": self.length}
        return MMDiT(MMDiTConfig(**fields, **width, **words))

    def sample_ids(self) -> Tensor:  # (k, L)
        "Ids of the texts to sample."
        return self.vocabulary.encode(self.prompts, self.length)


def _read_texts(options: Train, data) -> _Texts | None:
    "The captions of the training images; None if the model is to have classes."
    chosen = options.texts
    if not chosen.captions:
        return None
    captions = data_captions(data) or []
    vocabulary = Vocabulary.of(captions, chosen.min_count)
    if not vocabulary.words:
        raise UserError(f"min_count is {chosen.min_count}, but no word of the captions occurs as often.")
    least, most = _LENGTHS
    longest = max(len(split_words(text)) for text in captions)
    length = chosen.text_length or min(max(longest, least), most)
    prompts = list(chosen.prompt) or _some_captions(captions, set(vocabulary.words), length)
    if chosen.prompt:
        vocabulary.encode(prompts, length, strict=True)  # raises for unknown words
    mirrored = sum(_may_mirror(data)) if options.training.flip else None
    return _Texts(captions, vocabulary, length, chosen.word_dropout, mirrored, prompts)


def _some_captions(captions: list[str], known: set[str], length: int) -> list[str]:
    "Different captions from all parts of the data: their known words, cut to a number."
    words = ([word for word in split_words(text) if word in known][:length] for text in captions)
    different = list(dict.fromkeys(" ".join(each) for each in words if each))
    spots = torch.linspace(0, len(different) - 1, min(len(different), _SHOWN)).long()
    return [different[i] for i in spots.tolist()]
