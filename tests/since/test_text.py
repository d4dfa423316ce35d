"""Vocabulary, ids, masked attention, the text encoder and captions, against loops and identities."""

import re

import pytest
import torch
from torch.utils.data import Subset

from dit_nb.batches import BatchReader, _Indices
from dit_nb.data import ImageSet, emoji
from dit_nb.errors import UserError
from dit_nb.since.text import (
    PADDING,
    UNKNOWN,
    CaptionSet,
    TextEncoder,
    Vocabulary,
    caption,
    caption_set,
    data_captions,
    masked_attention,
    split_words,
)
from dit_nb.subsets import _data_fingerprint
from support import raises_input_error

TEXTS = ["3d green apple", "flat green apple", "flat one-thirty clock", "3d family: man, woman"]


@pytest.fixture(scope="module")
def words():
    return Vocabulary.of(TEXTS)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return TextEncoder(12, 16, length=6, depth=2, num_heads=4).eval()


def test_words_are_split_at_punctuation():
    assert split_words("Family: Man, (one-thirty)  clock") == ["family", "man", "one", "thirty", "clock"]
    assert split_words("worker’s * 3D") == ["worker's", "*", "3d"]
    assert split_words('An "apple"; red! No. 3.5 ...?') == ["an", "apple", "red", "no", "3.5"]
    assert split_words(" -, ") == []


def test_the_vocabulary_counts_words_and_orders_them(words):
    assert words.words[:4] == ("3d", "apple", "flat", "green")  # twice each, in alphabetical order
    assert len(words) == len(words.words) + 2 == len(set(words.words)) + 2
    assert Vocabulary.of(TEXTS, min_count=2).words == ("3d", "apple", "flat", "green")


def test_ids_are_padded_and_decoded(words):
    ids = words.encode(["3d apple", "", "flat blue apple"], 5)
    assert ids.dtype == torch.long and ids.shape == (3, 5)
    assert ids[0].tolist()[:2] == [2, 3] and (ids[0, 2:] == PADDING).all() and (ids[1] == PADDING).all()
    assert ids[2, 1] == UNKNOWN
    assert words.decode(ids) == ["3d apple", "", "flat <unknown> apple"]
    assert words.decode(words.encode(TEXTS, 5)) == [" ".join(split_words(text)) for text in TEXTS]


def test_signs_are_no_words():
    assert split_words("A cat “hi” – x… [3d] «now»/then, isn’t") == "a cat hi x 3d now then isn't".split()


def test_texts_that_do_not_fit_are_refused(words):
    with pytest.raises(UserError, match="^text 'flat green apple' has 3 words, .* 2[.]$"):
        words.encode(["flat green apple"], 2)
    with pytest.raises(UserError, match="'aple'.*apple"):
        words.encode(["green aple"], 4, strict=True)
    for texts in ("green", [1]):
        with pytest.raises(UserError, match=rf"^texts is {re.escape(repr(texts))},"):
            words.encode(texts, 4)


def test_masked_attention_is_attention_to_the_kept_keys():
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 3, n, 4, generator=g).double() for n in (5, 7, 7))
    keep = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1, 1]]).bool()
    got = masked_attention(q, k, v, keep)
    for n in range(2):
        rows = keep[n].nonzero()[:, 0]
        weights = (q[n] @ k[n][:, rows].mT / 4**0.5).softmax(-1)
        torch.testing.assert_close(got[n], weights @ v[n][:, rows])


def test_padding_changes_nothing_of_an_encoded_text(encoder):
    y = torch.tensor([[3, 4, 0, 0, 0, 0], [5, 6, 7, 8, 0, 0]])
    long, short = encoder(y), encoder(y[:, :4])
    assert torch.equal(long.keep[:, :5], short.keep) and not long.keep[:, 5:].any()
    torch.testing.assert_close(long.pooled, short.pooled, atol=1e-6, rtol=1e-5)
    kept = short.keep
    torch.testing.assert_close(long.tokens[:, :5][kept], short.tokens[kept], atol=1e-6, rtol=1e-5)
    alone = encoder(y[:1, :2])  # in no batch
    torch.testing.assert_close(alone.pooled, long.pooled[:1], atol=1e-6, rtol=1e-5)


def test_the_null_text_is_one_token_and_what_drop_gives(encoder):
    y = torch.tensor([[3, 4, 0], [5, 6, 7]])
    null, dropped = encoder(torch.zeros(1, 3, dtype=torch.long)), encoder(y, torch.tensor([True, False]))
    assert null.keep.tolist() == [[True, False, False, False]]
    torch.testing.assert_close(dropped.pooled[:1], null.pooled)
    torch.testing.assert_close(dropped.pooled[1:], encoder(y).pooled[1:])
    torch.testing.assert_close(null.pooled, null.tokens[:, 0])


def test_the_order_of_words_counts(encoder):
    a, b = encoder(torch.tensor([[3, 4]])), encoder(torch.tensor([[4, 3]]))
    assert (a.pooled - b.pooled).abs().max() > 1e-3


def test_captions_of_emoji():
    data = emoji(["food"])
    vocabulary = Vocabulary.of(caption(e) for e in data.train.entries)
    captions = caption_set(data.train, vocabulary, 12)
    i = next(k for k, e in enumerate(data.train.entries) if (e.name, e.style) == ("green apple", "3d"))
    image, ids = captions[i]
    assert vocabulary.decode(ids[None]) == ["3d green apple"] and torch.equal(image, data.train.images[i])
    assert len(captions) == len(data.train)
    images, ids = BatchReader(Subset(captions, [i, 0]))([0, 1])
    assert torch.equal(ids[0], captions.ids[i]) and torch.equal(images[1], data.train.images[0])


def test_word_dropout_is_a_function_of_the_key_and_spares_padding():
    ids = torch.cat([torch.full((500, 3), 7), torch.zeros(500, 2, dtype=torch.long)], 1)
    data = CaptionSet(torch.zeros(500, 1, 2, 2), ids, word_dropout=0.2)
    indices = _Indices(list(range(500)), [(0, 4, 9, place) for place in range(500)])
    got = data.get_batch(indices)[1]
    assert torch.equal(got, data.get_batch(indices)[1])
    assert (got[:, 3:] == PADDING).all() and set(got[:, :3].unique().tolist()) == {UNKNOWN, 7}
    share = (got[:, :3] == UNKNOWN).double().mean()
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / 1500) ** 0.5  # five standard deviations
    assert torch.equal(CaptionSet(data.images, ids).get_batch([3])[1], ids[3:4])


class Captioned(ImageSet):
    "Images with captions, and labels that a model of texts must not see."

    captions = ("a dog, facing left", "a dog", "the letters A and B", "leftovers")


@pytest.fixture
def dogs():
    images = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Captioned(images, torch.arange(4), tuple("abcd"))


def test_mirror_images_are_appended_if_the_caption_allows_it(dogs):
    vocabulary = Vocabulary.of(dogs.captions)
    data = caption_set(Subset(dogs, [3, 0, 1]), vocabulary, 5, mirror=True)
    assert data.mirrored == (0, 2) and len(data) == 5  # leftovers and a dog; not what faces left
    images, ids = data.get_batch([0, 1, 2, 3, 4])
    assert torch.equal(images, torch.cat([dogs.images[[3, 0, 1]], dogs.images[[3, 1]].flip(-1)]))
    assert vocabulary.decode(ids) == ["leftovers", "a dog facing left", "a dog", "leftovers", "a dog"]
    assert torch.equal(data[4][0], images[4]) and torch.equal(BatchReader(data)([4, 1])[0], images[[4, 1]])
    assert caption_set(dogs, vocabulary, 5).mirrored == ()


def test_mirror_images_of_emoji_are_those_of_the_data_set():
    split = emoji(["animals", "symbols"]).train
    vocabulary = Vocabulary.of(data_captions(split))
    ours, theirs = caption_set(split, vocabulary, 12, mirror=True), split.with_mirror_images()
    assert len(ours) == len(theirs) > len(split)
    images, ids = ours.get_batch(range(len(ours)))
    assert torch.equal(images, theirs.images)
    assert vocabulary.decode(ids) == [" ".join(split_words(caption(entry))) for entry in theirs.entries]


def test_long_captions_are_cut(dogs):
    vocabulary = Vocabulary.of(dogs.captions)
    assert vocabulary.decode(caption_set(dogs, vocabulary, 2).ids) == [
        "a dog",
        "a dog",
        "the letters",
        "leftovers",
    ]
    with raises_input_error("ImageSet without captions"):
        caption_set(ImageSet(dogs.images, dogs.labels, dogs.class_names), vocabulary, 2)


def test_a_data_set_of_captions_passes_the_keys_on(dogs):
    """A random crop, say, is a function of the key, and of other random numbers than the hidden words."""
    seen = []

    class Recording(Captioned):
        def get_batch(self, indices):
            seen.append((list(indices), indices.keys))
            return super().get_batch(indices)

    data = Recording(dogs.images, dogs.labels, dogs.class_names)
    captions = caption_set(data, Vocabulary.of(dogs.captions), 3, mirror=True)
    captions.get_batch(_Indices([5, 0], [(0, 4, 1, 0), (0, 4, 1, 1)]))
    assert seen == [([3, 0], [(0, 4, 1, 0), (0, 4, 1, 1)])]


def test_the_fingerprint_depends_on_images_captions_and_mirror_images(dogs):
    vocabulary, images = Vocabulary.of(dogs.captions), -dogs.images
    sets = [caption_set(dogs, vocabulary, 5), caption_set(dogs, vocabulary, 5, mirror=True)]
    sets += [caption_set(Captioned(images, dogs.labels, dogs.class_names), vocabulary, 5)]
    sets += [caption_set(dogs, vocabulary, 2)]
    prints = [_data_fingerprint(data) for data in sets]
    assert None not in prints and len(set(prints)) == 4
    assert prints[0] == _data_fingerprint(caption_set(dogs, vocabulary, 5))
    assert _data_fingerprint(CaptionSet(dogs.images, sets[0].ids)) is None
