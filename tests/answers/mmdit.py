"""Answers to the exercises of lesson 33: one attention over two streams, and the update of a stream."""

import torch
import torch.nn.functional as F

from . import right, wrong

# ---- two_stream_attention


def joined(image, text):
    """Queries, keys, values of the whole sequence, and the number of image tokens."""
    return *(torch.cat((a, b), dim=2) for a, b in zip(image, text)), image.shape[3]


def scores_of(q, k):
    """Scaled scores."""
    return torch.einsum("nhqd,nhkd->nhqk", q, k) * q.shape[-1] ** -0.5


def key_mask(keep, tokens):
    """Keys that may be attended, (N, 1, 1, T+S)."""
    return torch.cat([torch.ones(len(keep), tokens, dtype=torch.bool, device=keep.device), keep], 1)[
        :, None, None
    ]


def split(found, tokens):
    """The results of the two streams."""
    return found[:, :, :tokens], found[:, :, tokens:]


@right("two_stream_attention")
def two_stream_sdpa(image, text, keep):
    q, k, v, tokens = joined(image, text)
    return split(F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask(keep, tokens)), tokens)


@right("two_stream_attention")
def two_stream_by_image(image, text, keep):
    pictures, words = [], []
    for n in range(len(keep)):
        q = torch.cat([image[0, n], text[0, n]], 1)
        k = torch.cat([image[1, n], text[1, n][:, keep[n]]], 1)
        v = torch.cat([image[2, n], text[2, n][:, keep[n]]], 1)
        found = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        pictures.append(found[:, : image.shape[3]])
        words.append(found[:, image.shape[3] :])
    return torch.stack(pictures), torch.stack(words)


@right("two_stream_attention")
def two_stream_exp(image, text, keep):
    q, k, v, tokens = joined(image, text)
    s = scores_of(q, k)
    weights = (s - s.amax(-1, keepdim=True)).exp() * key_mask(keep, tokens)
    return split(weights / weights.sum(-1, keepdim=True) @ v, tokens)


def slip(words):
    """Register a wrong (scores, mask, v) -> result as an answer."""

    def keep_it(core):
        def answer(image, text, keep):
            q, k, v, tokens = joined(image, text)
            return split(core(scores_of(q, k), key_mask(keep, tokens), v), tokens)

        answer.__name__ = core.__name__
        return wrong("two_stream_attention", words)(answer)

    return keep_it


@slip("Padding is attended")
def two_stream_no_mask(s, mask, v):
    return F.softmax(s, dim=-1) @ v


@slip("score of padding is set to 0")
def two_stream_zero_scores(s, mask, v):
    return torch.where(mask, s, 0.0).softmax(-1) @ v


@slip("removed after the softmax")
def two_stream_mask_after(s, mask, v):
    return torch.where(mask, s.softmax(-1), 0.0) @ v


@slip("added as 0 and 1")
def two_stream_mask_added(s, mask, v):
    return (s + mask.double()).softmax(-1) @ v


@slip("lies on the queries")
def two_stream_mask_queries(s, mask, v):
    return torch.where(mask.transpose(-1, -2), s.softmax(-1), 0.0) @ v


@slip("runs over the queries")
def two_stream_other_axis(s, mask, v):
    return torch.where(mask, s, -1e30).softmax(-2) * mask @ v


@slip("not divided by the square root")
def two_stream_no_scale(s, mask, v):
    return torch.where(mask, s * v.shape[-1] ** 0.5, -torch.inf).softmax(-1) @ v


@slip("divided by the width of a head; it must be")
def two_stream_scaled_twice(s, mask, v):
    return torch.where(mask, s / v.shape[-1] ** 0.5, -torch.inf).softmax(-1) @ v


@slip("comes from the number of tokens")
def two_stream_token_scale(s, mask, v):
    return torch.where(mask, s * (v.shape[-1] / v.shape[-2]) ** 0.5, -torch.inf).softmax(-1) @ v


@slip("Queries and keys are exchanged")
def two_stream_transposed(s, mask, v):
    return torch.where(mask, s.mT, -torch.inf).softmax(-1) @ v


@slip("All images get the mask of the first one")
def two_stream_first_mask(s, mask, v):
    return torch.where(mask[:1], s, -torch.inf).softmax(-1) @ v


@wrong("two_stream_attention", "The mask is inverted")
def two_stream_inverted(image, text, keep):
    return two_stream_sdpa(image, text, keep.logical_not())


@wrong("two_stream_attention", "hides image tokens")
def two_stream_mask_first(image, text, keep):
    q, k, v, tokens = joined(image, text)
    mask = torch.cat([keep, torch.ones(len(keep), tokens, dtype=torch.bool, device=keep.device)], 1)
    return split(F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]), tokens)


@wrong("two_stream_attention", "text tokens still attend to it")
def two_stream_text_unmasked(image, text, keep):
    return two_stream_sdpa(image, text, keep)[0], two_stream_no_mask(image, text, keep)[1]


@wrong("two_stream_attention", "image tokens still attend to it")
def two_stream_image_unmasked(image, text, keep):
    return two_stream_no_mask(image, text, keep)[0], two_stream_sdpa(image, text, keep)[1]


@wrong("two_stream_attention", "The two results are exchanged")
def two_stream_text_returned_first(image, text, keep):
    first, second = two_stream_sdpa(image, text, keep)
    return second, first


@wrong("two_stream_attention", "as if the image did")
def two_stream_text_first(image, text, keep):
    q, k, v, words = joined(text, image)
    mask = torch.cat([keep, torch.ones(len(keep), image.shape[3], dtype=torch.bool, device=keep.device)], 1)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    return split(found, image.shape[3])


def alone(q, k, v, keep=None):
    """Attention of one stream."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if keep is None else keep[:, None, None])


@wrong("two_stream_attention", "Each stream attends to itself alone")
def two_stream_apart(image, text, keep):
    return alone(*image), alone(*text, keep)


@wrong("two_stream_attention", "Each stream attends to the other alone")
def two_stream_cross(image, text, keep):
    return alone(image[0], text[1], text[2], keep), alone(text[0], image[1], image[2])


@wrong("two_stream_attention", "The image attends to itself alone")
def two_stream_image_alone(image, text, keep):
    return alone(*image), two_stream_sdpa(image, text, keep)[1]


@wrong("two_stream_attention", "The text attends to itself alone")
def two_stream_text_alone(image, text, keep):
    return two_stream_sdpa(image, text, keep)[0], alone(*text, keep)


@wrong("two_stream_attention", "the weights sum to 2")
def two_stream_sum(image, text, keep):
    return tuple(alone(q, *image[1:]) + alone(q, *text[1:], keep) for q in (image[0], text[0]))


@wrong("two_stream_attention", "the mean is taken")
def two_stream_mean(image, text, keep):
    return tuple(part / 2 for part in two_stream_sum(image, text, keep))


@slip("is set to -10")
def two_stream_minus_10(s, mask, v):
    return s.masked_fill(~mask, -10).softmax(-1) @ v


@slip("is set to -5")
def two_stream_minus_5(s, mask, v):
    return s.masked_fill(~mask, -5).softmax(-1) @ v


@slip("is set to -1;")
def two_stream_minus_1(s, mask, v):
    return s.masked_fill(~mask, -1).softmax(-1) @ v


@slip("is lowered by 10")
def two_stream_penalty(s, mask, v):
    return (s - 10.0 * mask.logical_not()).softmax(-1) @ v


@slip("so that its result is nan")
def two_stream_both_sides(s, mask, v):
    return torch.where(mask & mask.mT, s, -torch.inf).softmax(-1) @ v


@slip("from the width of all heads")
def two_stream_model_scale(s, mask, v):
    return torch.where(mask, s / v.shape[1] ** 0.5, -torch.inf).softmax(-1) @ v


@slip("from the number of heads")
def two_stream_head_scale(s, mask, v):
    return torch.where(mask, s * (v.shape[-1] / v.shape[1]) ** 0.5, -torch.inf).softmax(-1) @ v


@slip("multiplied by the square root of the width")
def two_stream_multiplied(s, mask, v):
    return torch.where(mask, s * v.shape[-1], -torch.inf).softmax(-1) @ v


@slip("runs over the heads")
def two_stream_over_heads(s, mask, v):
    return torch.where(mask, s, -1e30).softmax(1) * mask @ v


@wrong("two_stream_attention", "Keys and values are exchanged")
def two_stream_key_for_value(image, text, keep):
    q, v, k, tokens = joined(image, text)
    return split(F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask(keep, tokens)), tokens)


def text_mask(keep, tokens):
    """Keys that may be attended, the text first, (N, 1, 1, S+T)."""
    return F.pad(keep, (0, tokens), value=True)[:, None, None]


@wrong("two_stream_attention", "but mask and split take the image to be first")
def two_stream_text_first_only_in_cat(image, text, keep):
    q, k, v, _ = joined(text, image)
    return split(
        F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask(keep, image.shape[3])), image.shape[3]
    )


@wrong("two_stream_attention", "but the mask takes the image to be first")
def two_stream_text_first_image_mask(image, text, keep):
    q, k, v, words = joined(text, image)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask(keep, image.shape[3]))
    second, first = split(found, words)
    return first, second


def image_first(image, text, keep):
    """The right result, not split."""
    return torch.cat(two_stream_sdpa(image, text, keep), 2)


@wrong("two_stream_attention", "split as if the text did")
def two_stream_split_text_first(image, text, keep):
    found, words = image_first(image, text, keep), text.shape[3]
    return found[:, :, words:], found[:, :, :words]


@wrong("two_stream_attention", "but mask and split take the text to be first")
def two_stream_image_first_only_in_cat(image, text, keep):
    q, k, v, tokens = joined(image, text)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=text_mask(keep, tokens))
    return found[:, :, text.shape[3] :], found[:, :, : text.shape[3]]


@wrong("two_stream_attention", "split at the number of words")
def two_stream_split_at_words(image, text, keep):
    return split(image_first(image, text, keep), text.shape[3])


@wrong("two_stream_attention", "two equal parts")
def two_stream_chunks(image, text, keep):
    return torch.chunk(image_first(image, text, keep), 2, dim=2)


# ---- stream_update


def mlp(x, w_in, w_out):
    """Two matrices and a GELU."""
    return F.gelu(x @ w_in, approximate="tanh") @ w_out


def norm(x):
    """Layer norm of each token."""
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()


def named(vectors):
    """The six vectors, (N, 1, D) each."""
    return vectors.unsqueeze(2).unbind(1)


@right("stream_update")
def stream_update_named(x, attended, vectors, w_in, w_out):
    _, _, gate, shift, scale, gate_mlp = named(vectors)
    x = x + gate * attended
    return x + gate_mlp * mlp(norm(x) * (1 + scale) + shift, w_in, w_out)


@right("stream_update")
def stream_update_by_image(x, attended, vectors, w_in, w_out):
    found = []
    for tokens, result, m in zip(x, attended, vectors):
        tokens = torch.addcmul(tokens, m[2].expand_as(result), result)
        inside = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        found.append(tokens + m[5] * mlp(inside + inside * m[4] + m[3], w_in, w_out))
    return torch.stack(found)


@wrong("stream_update", "the result of the attention is lost")
def stream_update_old_residual(x, attended, vectors, w_in, w_out):
    _, _, gate, shift, scale, gate_mlp = named(vectors)
    inside = norm(x + gate * attended) * (1 + scale) + shift
    return x + gate_mlp * mlp(inside, w_in, w_out)


@wrong("stream_update", "receives the tokens from before the attention")
def stream_update_parallel(x, attended, vectors, w_in, w_out):
    _, _, gate, shift, scale, gate_mlp = named(vectors)
    return x + gate * attended + gate_mlp * mlp(norm(x) * (1 + scale) + shift, w_in, w_out)


def reordered(words, *order):
    """An answer that reads the vectors in another order."""

    def answer(x, attended, vectors, w_in, w_out):
        return stream_update_named(x, attended, vectors[:, list(order)], w_in, w_out)

    answer.__name__ = "stream_update_order_" + "".join(map(str, order))
    wrong("stream_update", words)(answer)


reordered("The two gates are exchanged", 0, 1, 5, 3, 4, 2)
reordered("Shift and scale are exchanged", 1, 0, 2, 4, 3, 5)
reordered("modulated by the attention's shift and scale", 3, 4, 2, 0, 1, 5)
reordered("the last three the MLP's", 3, 4, 5, 0, 1, 2)
reordered("two shifts, two scales, two gates", 0, 2, 4, 1, 3, 5)
reordered("with the gate first", 1, 2, 0, 4, 5, 3)


@wrong("stream_update", "The result of the attention has no gate")
def stream_update_open(x, attended, vectors, w_in, w_out):
    _, _, _, shift, scale, gate_mlp = named(vectors)
    x = x + attended
    return x + gate_mlp * mlp(norm(x) * (1 + scale) + shift, w_in, w_out)


def after_attention(words):
    """Register a wrong second half: (tokens after the attention, vectors, w_in, w_out) -> tokens."""

    def keep_it(half):
        def answer(x, attended, vectors, w_in, w_out):
            return half(x + vectors[:, 2, None] * attended, named(vectors)[3:], w_in, w_out)

        answer.__name__ = half.__name__
        return wrong("stream_update", words)(answer)

    return keep_it


@after_attention("The result of the MLP has no gate")
def stream_update_open_mlp(x, m, w_in, w_out):
    return x + mlp(norm(x) * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("The scale is used without 1 +")
def stream_update_no_one(x, m, w_in, w_out):
    return x + m[2] * mlp(norm(x) * m[1] + m[0], w_in, w_out)


@after_attention("The layer norm before the MLP is missing")
def stream_update_no_norm(x, m, w_in, w_out):
    return x + m[2] * mlp(x * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("The layer norm comes after the modulation")
def stream_update_late_norm(x, m, w_in, w_out):
    return x + m[2] * mlp(norm(x * (1 + m[1]) + m[0]), w_in, w_out)


@after_attention("is not modulated")
def stream_update_no_modulation(x, m, w_in, w_out):
    return x + m[2] * mlp(norm(x), w_in, w_out)


@after_attention("The shift is missing")
def stream_update_no_shift(x, m, w_in, w_out):
    return x + m[2] * mlp(norm(x) * (1 + m[1]), w_in, w_out)


@after_attention("The scale is missing")
def stream_update_no_scale(x, m, w_in, w_out):
    return x + m[2] * mlp(norm(x) + m[0], w_in, w_out)


@after_attention("The shift is scaled, too")
def stream_update_shift_first(x, m, w_in, w_out):
    return x + m[2] * mlp((norm(x) + m[0]) * (1 + m[1]), w_in, w_out)


@after_attention("The second residual connection is missing")
def stream_update_no_second(x, m, w_in, w_out):
    return m[2] * mlp(norm(x) * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("multiplies the whole stream")
def stream_update_gate_all(x, m, w_in, w_out):
    return m[2] * (x + mlp(norm(x) * (1 + m[1]) + m[0], w_in, w_out))


@after_attention("over all tokens of an image")
def stream_update_norm_of_image(x, m, w_in, w_out):
    normed = F.layer_norm(x, x.shape[1:], eps=1e-6)
    return x + m[2] * mlp(normed * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("no activation")
def stream_update_linear(x, m, w_in, w_out):
    return x + m[2] * ((norm(x) * (1 + m[1]) + m[0]) @ w_in @ w_out)


@after_attention("is a ReLU")
def stream_update_relu(x, m, w_in, w_out):
    return x + m[2] * (F.relu((norm(x) * (1 + m[1]) + m[0]) @ w_in) @ w_out)


@wrong("stream_update", "used as 1 + gate")
def stream_update_one_plus_gate(x, attended, vectors, w_in, w_out):
    one = torch.tensor([0, 0, 1, 0, 0, 1], dtype=x.dtype, device=x.device)[:, None]
    return stream_update_named(x, attended, vectors + one, w_in, w_out)


@wrong("stream_update", "The gate is a sigmoid")
def stream_update_sigmoid(x, attended, vectors, w_in, w_out):
    gates = [2, 5]
    vectors = vectors.clone()
    vectors[:, gates] = vectors[:, gates].sigmoid()
    return stream_update_named(x, attended, vectors, w_in, w_out)


@wrong("stream_update", "The first residual connection is missing")
def stream_update_no_first(x, attended, vectors, w_in, w_out):
    return stream_update_named(torch.zeros_like(x), attended, vectors, w_in, w_out)


@wrong("stream_update", "The attention's result is not used")
def stream_update_no_attention(x, attended, vectors, w_in, w_out):
    return stream_update_named(x, torch.zeros_like(x), vectors, w_in, w_out)


reordered("attention's three vectors are used again", 0, 1, 2, 0, 1, 2)
reordered("Both branches have the attention's gate", 0, 1, 2, 3, 4, 2)
reordered("Both branches have the MLP's gate", 0, 1, 5, 3, 4, 5)
reordered("as gate, scale, shift", 2, 1, 0, 5, 4, 3)
reordered("as shift, gate, scale", 0, 2, 1, 3, 5, 4)
reordered("as scale, gate, shift", 2, 0, 1, 5, 3, 4)
reordered("The attention's gate is read first", 1, 2, 0, 3, 4, 5)
reordered("The MLP's gate is read first", 0, 1, 2, 4, 5, 3)
reordered("with both gates first", 2, 3, 0, 4, 5, 1)
reordered("with both gates last", 0, 1, 4, 2, 3, 5)
reordered("as two gates, two shifts, two scales", 2, 4, 0, 3, 5, 1)
reordered("as two scales, two shifts, two gates", 2, 0, 4, 3, 1, 5)


@after_attention("an RMS norm")
def stream_update_rms(x, m, w_in, w_out):
    normed = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    return x + m[2] * mlp(normed * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("with D - 1 in it")
def stream_update_std(x, m, w_in, w_out):
    normed = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    return x + m[2] * mlp(normed * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("runs over the tokens")
def stream_update_norm_of_tokens(x, m, w_in, w_out):
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    return x + m[2] * mlp(normed * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("after both matrices")
def stream_update_late_gelu(x, m, w_in, w_out):
    return x + m[2] * F.gelu((norm(x) * (1 + m[1]) + m[0]) @ w_in @ w_out, approximate="tanh")


@after_attention("multiplies the MLP's input")
def stream_update_gate_inside(x, m, w_in, w_out):
    return x + mlp((norm(x) * (1 + m[1]) + m[0]) * m[2], w_in, w_out)


@after_attention("begins with the normalized tokens")
def stream_update_from_norm(x, m, w_in, w_out):
    x = norm(x)
    return x + m[2] * mlp(x * (1 + m[1]) + m[0], w_in, w_out)


@after_attention("begins with the MLP's input")
def stream_update_from_input(x, m, w_in, w_out):
    x = norm(x) * (1 + m[1]) + m[0]
    return x + m[2] * mlp(x, w_in, w_out)


@wrong("stream_update", "receives the attention's result alone")
def stream_update_mlp_of_result(x, attended, vectors, w_in, w_out):
    _, _, gate, shift, scale, gate_mlp = named(vectors)
    x = x + gate * attended
    return x + gate_mlp * mlp(norm(attended) * (1 + scale) + shift, w_in, w_out)


@wrong("stream_update", "result is normalized before")
def stream_update_normed_result(x, attended, vectors, w_in, w_out):
    return stream_update_named(x, norm(attended), vectors, w_in, w_out)


@wrong("stream_update", "normalized and modulated before")
def stream_update_modulated_result(x, attended, vectors, w_in, w_out):
    shift, scale, *_ = named(vectors)
    return stream_update_named(x, norm(attended) * (1 + scale) + shift, vectors, w_in, w_out)


@wrong("stream_update", "The first gate multiplies the whole stream")
def stream_update_first_gate_all(x, attended, vectors, w_in, w_out):
    return stream_update_named(x * vectors[:, 2:3], attended, vectors, w_in, w_out)


@wrong("stream_update", "result is added twice")
def stream_update_added_twice(x, attended, vectors, w_in, w_out):
    once = vectors[:, 2:3] * attended
    return stream_update_named(x, attended, vectors, w_in, w_out) + once


@wrong("stream_update", "Neither branch has a gate")
def stream_update_no_gates(x, attended, vectors, w_in, w_out):
    _, _, _, shift, scale, _ = named(vectors)
    x = x + attended
    return x + mlp(norm(x) * (1 + scale) + shift, w_in, w_out)


@wrong("stream_update", "the vectors of the first one")
def stream_update_first_vectors(x, attended, vectors, w_in, w_out):
    return stream_update_named(x, attended, vectors[0].expand_as(vectors), w_in, w_out)
