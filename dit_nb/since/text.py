"""Captions as numbers: a vocabulary of words, a small text encoder with a padding mask, and pictures with captions."""

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

from dit_nb.batches import _uniform
from dit_nb.blocks.base import PlainBlock
from dit_nb.emoji import Emoji, EmojiSet
from dit_nb.errors import UserError, _is_int, _shown

__all__ = ["PADDING", "UNKNOWN", "CaptionSet", "Text", "TextEncoder", "Vocabulary", "caption", "caption_set"]
__all__ += ["masked_attention", "split_words"]

PADDING, UNKNOWN = 0, 1  # the first two ids of every vocabulary


def split_words(text: str) -> list[str]:
    "Words of a caption in lower case: what stands between spaces, hyphens, commas, colons and parentheses."
    return re.findall(r"[^\s,:()\-]+", text.lower().replace("’", "'"))


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

    def encode(self, texts: Sequence[str], length: int, strict: bool = False) -> Tensor:  # (N, L) long
        """Return the ids of each text's words, then padding.

        Args:
            texts: N captions
            length: number of ids in a row, L
            strict: raise for a word that the vocabulary does not have, instead of taking the unknown word

        Raises:
            UserError: if a text has more than `length` words, or, if `strict`, a word that is not known
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
    "Raise a UserError that lists words of the vocabulary that are spelled alike."
    for word in words:
        if word not in index:
            near = (
                get_close_matches(word, index, n=5)
                or [known for known in index if known.startswith(word[:3])][:5]
            )
            hint = f": near are {', '.join(near)}" if near else ""
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
        "Update tokens (N, S, W), given which of them are no padding, (N, S)."
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
        mean = (x * keep[..., None]).sum(1) / keep.sum(
            1, keepdim=True
        )  # (N, W), of the tokens that are no padding
        return Text(x, keep, mean)


def caption(entry: Emoji) -> str:
    'Caption of an emoji: its style and its name, "3d green apple".'
    return f"{entry.style} {entry.name}"


@dataclass(frozen=True)
class CaptionSet:
    "Images with captions, as data set of a `Trainer`."

    images: Tensor  # (N, C, H, W) float32 in [-1, 1]
    ids: Tensor  # (N, L) long
    word_dropout: float = 0.0  # probability of reading a word as the unknown one, in `get_batch`

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.images[i], self.ids[i]

    def get_batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        "Images (B, C, H, W) and ids (B, L) of a batch; some words replaced by the unknown word."
        ids = self.ids[indices]
        if self.word_dropout:
            hidden = _uniform(indices, ids.shape[1]) < self.word_dropout
            ids = torch.where(hidden & (ids != PADDING), UNKNOWN, ids)
        return self.images[indices], ids


def caption_set(data: EmojiSet, vocabulary: Vocabulary, length: int, word_dropout: float = 0.0) -> CaptionSet:
    """Give emoji their captions.

    Args:
        data: emoji
        vocabulary: words with ids
        length: ids of a caption, L
        word_dropout: probability of reading a word as the unknown one, new for each batch
    """
    return CaptionSet(
        data.images, vocabulary.encode([caption(e) for e in data.entries], length), word_dropout
    )


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
