"""Captions as numbers: a vocabulary of words, a small text encoder with a padding mask, and pictures with captions."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.data import Subset

from dit_nb.batches import BatchReader, ImageData, _as_index, _Indices, _uniform
from dit_nb.blocks.base import PlainBlock
from dit_nb.emoji import Emoji, EmojiSet, _has_no_direction
from dit_nb.errors import UserError, _is_int, _shown
from dit_nb.subsets import _data_fingerprint

__all__ = ["PADDING", "UNKNOWN", "CaptionSet", "Text", "TextEncoder", "Vocabulary", "caption", "caption_set"]
__all__ += ["TextBlock", "data_captions", "masked_attention", "split_words"]

PADDING, UNKNOWN = 0, 1  # the first two ids of every vocabulary


def split_words(text: str) -> list[str]:
    "Words of a caption in lower case, without punctuation; a hyphen separates two words."
    words = re.findall(r"[^\s,;:!?\"()\-–—…“”„«»\[\]{}/]+", text.lower().replace("’", "'"))
    return [word.strip(".") for word in words if word.strip(".")]


@dataclass(frozen=True)
class Vocabulary:
    "Words by id: 0 is padding, 1 an unknown word, 2 the first word."

    words: tuple[str, ...]  # each word once; the id of words[i] is i + 2

    @classmethod
    def of(cls, texts: Iterable[str], min_count: int = 1) -> "Vocabulary":
        """Collect the words of texts, the most frequent first.

        Args:
            texts: captions
            min_count: how often a word must occur; a rarer one is unknown
        """
        counts = Counter(word for text in texts for word in split_words(text))
        known = [word for word, count in counts.items() if count >= min_count]
        return cls(tuple(sorted(known, key=lambda word: (-counts[word], word))))

    def __len__(self) -> int:
        "Number of ids: the words, padding and the unknown word."
        return len(self.words) + 2

    def encode(self, texts: Sequence[str], length: int, strict: bool = False) -> Tensor:
        """Return the ids of each text's words, then padding.

        Args:
            texts: N captions
            length: number of ids in a row, L
            strict: raise for a word that the vocabulary does not have, instead of taking the unknown word

        Returns:
            (N, L) long

        Raises:
            UserError: if `texts` is no list of strings, if a text has more than `length` words, or,
                if `strict`, a word that is not known
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"texts is {_shown(texts)}, but must be a list of strings.")
        index = {word: i for i, word in enumerate(self.words, start=2)}
        ids = torch.full((len(texts), length), PADDING)
        for row, text in zip(ids, texts):
            words = split_words(text)
            if len(words) > length:
                raise UserError(
                    f"text {_shown(text)} has {len(words)} words, but must have at most {length}."
                )
            if strict:
                _check_known(words, index)
            row[: len(words)] = torch.tensor([index.get(word, UNKNOWN) for word in words], dtype=torch.long)
        return ids

    def decode(self, ids: Tensor) -> list[str]:
        "Return the text of each row of ids, (N, L); an unknown word is written <unknown>."
        names = ("", "<unknown>", *self.words)
        return [" ".join(names[i] for i in row if i != PADDING) for row in ids.tolist()]


def _check_known(words: list[str], index: dict[str, int]) -> None:
    "Raise a UserError that lists the words of the vocabulary, or those of a large one that are spelled alike."
    for word in words:
        if word not in index:
            alike = get_close_matches(word, index, n=5) or [k for k in index if k.startswith(word[:3])][:5]
            hint = f"; {', '.join(alike)} are spelled alike" if alike else ""
            hint = f": {', '.join(index)}" if len(index) <= 20 else hint
            raise UserError(
                f"prompt has the word {_shown(word)}, which is not among the {len(index)} words known{hint}."
            )


def masked_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """Attention to some of the keys: the others get weight 0 from every query.

    Args:
        q: queries, (N, h, T, d)
        k: keys, (N, h, S, d)
        v: values, (N, h, S, d)
        keep: keys that may be attended, (N, S) bool; at least one in each row

    Returns:
        (N, h, T, d)
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])


class Text(NamedTuple):
    "What a text encoder returns."

    tokens: Tensor  # (N, S, W) one vector for the start token, then one for each word
    keep: Tensor  # (N, S) bool, False for padding
    pooled: Tensor  # (N, P) one vector for the whole text


class TextBlock(PlainBlock):
    "A plain transformer block whose attention leaves out padding."

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Update tokens `x`, (N, S, W); `keep`, (N, S) bool, is False for padding."""
        attended = masked_attention(*self.attn.qkv_heads(self.norm1(x)), keep)  # (N, h, S, W/h)
        x = x + self.attn.proj(rearrange(attended, "n h s d -> n s (h d)"))  # (N, S, W)
        return x + self.mlp(self.norm2(x))  # (N, S, W)


class TextEncoder(nn.Module):
    """Embed words and positions, and let the words of a text attend to each other.

    A learned start token stands before the words and is never padding: a text without words has one token, too.

    Args:
        vocabulary_size: number of ids, with padding and the unknown word
        width: width of a token, W
        length: largest number of words, L
        depth: number of transformer blocks
        num_heads: attention heads
        null_class: id of the null text, a row of padding; None: a model that was never trained on it
    """

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        length: int,
        depth: int = 2,
        num_heads: int = 4,
        null_class: int | None = 0,
    ):
        super().__init__()
        self.vocabulary_size, self.length, self.null_class = vocabulary_size, length, null_class
        self.words = nn.Embedding(vocabulary_size, width)
        self.start = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.1 * torch.randn(1, length + 1, width))
        self.blocks = nn.ModuleList(TextBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, y: Tensor, drop: Tensor | None = None) -> Text:
        """Encode ids.

        Args:
            y: (N, L) ids; fewer columns than `length` will do
            drop: (N,) bool, True replaces the text by the null text
        """
        if drop is not None:
            y = torch.where(drop[:, None], PADDING, y)  # (N, L)
        keep = F.pad(y != PADDING, (1, 0), value=True)  # (N, 1+L): the start token is no padding
        x = torch.cat([self.start.expand(len(y), -1, -1), self.words(y)], dim=1)  # (N, 1+L, W)
        x = x + self.positions[:, : x.shape[1]]
        for block in self.blocks:
            x = block(x, keep)
        x = self.norm(x)
        kept = x * keep[..., None]  # (N, 1+L, W)
        mean = kept.sum(1) / keep.sum(1, keepdim=True)  # (N, W), without padding
        return Text(x, keep, mean)


def caption(entry: Emoji) -> str:
    'Caption of an emoji: its style and its name, "3d green apple".'
    return f"{entry.style} {entry.name}"


@dataclass(frozen=True)
class CaptionSet:
    """Images with captions, as data set of a `Trainer`: first all images, then the mirror images of some.

    `caption_set` makes one of a data set whose captions are known.
    """

    images: Tensor | ImageData  # (N, C, H, W) float32 in [-1, 1], or a data set of N images
    ids: Tensor  # (N, L) long
    word_dropout: float = 0.0  # probability of reading a word as the unknown one, in `get_batch`
    mirrored: tuple[int, ...] = ()  # indices of the images that have a mirror image

    def __len__(self) -> int:
        return len(self.images) + len(self.mirrored)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        images, ids = self._read([_as_index(i, len(self))])
        return images[0], ids[0]

    def get_batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        "Images (B, C, H, W) and ids (B, L) of a batch; some words replaced by the unknown word."
        images, ids = self._read(indices)
        if self.word_dropout:  # the first three numbers of an image choose its crop
            hidden = _uniform(indices, 3 + ids.shape[1])[:, 3:] < self.word_dropout
            ids = torch.where(hidden & (ids != PADDING), UNKNOWN, ids)
        return images, ids

    def _read(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        "Images (B, C, H, W), the mirrored ones among them, and ids (B, L) with all words."
        n, keys = len(self.images), getattr(indices, "keys", None)
        rows = [i if i < n else self.mirrored[i - n] for i in indices]
        if isinstance(self.images, Tensor):
            images = self.images[rows]
        else:
            images, _ = BatchReader(self.images)(rows if keys is None else _Indices(rows, keys))
        flip = torch.tensor([i >= n for i in indices])[:, None, None, None]
        return torch.where(flip, images.flip(-1), images), self.ids[rows]

    @property
    def fingerprint(self) -> str | None:
        "Hash of images and ids, by which a resumed run notices others; None if the images have none."
        images = _data_fingerprint(self.images)
        if images is None:
            return None
        content = self.ids.numpy().tobytes() + repr((images, self.mirrored)).encode()
        return hashlib.sha256(content).hexdigest()[:16]


def data_captions(data: ImageData) -> list[str] | None:
    """Return the captions of a data set, N texts; None if it has none.

    Args:
        data: emoji, what `open_images(..., captions=True)` returns, or a `Subset` of such
    """
    if isinstance(data, Subset):
        captions = data_captions(data.dataset)
        return None if captions is None else [captions[i] for i in data.indices]
    if isinstance(data, EmojiSet):
        return [caption(entry) for entry in data.entries]
    captions = getattr(data, "captions", None)
    return None if captions is None else list(captions)


def caption_set(
    data: ImageData, vocabulary: Vocabulary, length: int, word_dropout: float = 0.0, mirror: bool = False
) -> CaptionSet:
    """Give images the ids of their captions. Captions of more than `length` words are cut.

    Args:
        data: images whose captions are known, see `data_captions`
        vocabulary: words with ids
        length: ids of a caption, L
        word_dropout: probability of reading a word as the unknown one, new for each batch
        mirror: append the mirror image of each image whose caption tells of no direction and no letters

    Raises:
        UserError: if the images have no captions
    """
    captions = data_captions(data)
    if captions is None:
        raise UserError(f"data is a {type(data).__name__} without captions, but must have some.")
    cut = [" ".join(split_words(text)[:length]) for text in captions]
    rows = tuple(i for i, may in enumerate(_may_mirror(data)) if may) if mirror else ()
    return CaptionSet(data, vocabulary.encode(cut, length), word_dropout, rows)


_DIRECTED = {"left", "right", "leftward", "rightward", "leftwards", "rightwards", "lefthand", "righthand"}
_DIRECTED |= {"east", "west", "eastern", "western", "clockwise", "counterclockwise", "anticlockwise"}
_DIRECTED |= {"text", "letter", "letters", "word", "words", "sign", "signs", "logo", "number", "numbers"}
_DIRECTED |= {"digit", "digits", "clock", "calendar", "map", "chart", "says", "reads", "writing", "written"}


def _may_mirror(data: ImageData) -> list[bool]:
    "Whether the caption fits the mirror image, too, of each image: it tells of no direction and no letters."
    if isinstance(data, Subset):
        whole = _may_mirror(data.dataset)
        return [whole[i] for i in data.indices]
    if isinstance(data, EmojiSet):
        return [_has_no_direction(entry) for entry in data.entries]
    return [not _DIRECTED.intersection(split_words(text)) for text in data_captions(data) or ()]


def _check_ids(y: Tensor, n: int, encoder: TextEncoder) -> None:
    "Raise a UserError unless y is ids (n, L) of an encoder's vocabulary."
    most, size = encoder.length, encoder.vocabulary_size
    wanted = f"ids (torch.long) of shape ({n}, L), with L at most {most}"
    if (
        not isinstance(y, Tensor)
        or y.dtype != torch.long
        or y.ndim != 2
        or len(y) != n
        or not _is_int(y.shape[1], 0)
    ):
        got = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise UserError(f"y is {got}, but must be {wanted}: see `encode_text`.")
    if y.shape[1] > most:
        raise UserError(f"y has {y.shape[1]} columns, but must be {wanted}.")
    if y.device.type != "cpu" or torch.compiler.is_compiling() or y.numel() == 0:
        return
    if not 0 <= y.min() <= y.max() < size:
        raise UserError(f"y holds ids from {y.min()} to {y.max()}, but must be in [0, {size - 1}].")
