"""Answers to the exercises of lessons 06 to 11."""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn

from . import right, wrong

# ---- attention


@right("attention")
def attention_fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


@right("attention")
def attention_einsum(q, k, v):
    scores = einsum(q, k, "n h t d, n h s d -> n h t s") / math.sqrt(q.shape[-1])
    return einsum(scores.softmax(dim=-1), v, "n h t s, n h s d -> n h t d")


@right("attention")
def attention_by_hand(q, k, v):
    scores = torch.matmul(q * q.size(-1) ** -0.5, k.transpose(-2, -1))
    scores = scores - scores.amax(-1, keepdim=True)
    powers = scores.exp()
    return (powers / powers.sum(-1, keepdim=True)) @ v


@wrong("attention", "The scores are not scaled")
def attention_unscaled(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


@wrong("attention", "divided by its square root")
def attention_over_d(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / q.shape[3], dim=3) @ v


@wrong("attention", "multiplied by the square root")
def attention_times_root(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) * q.shape[3] ** 0.5, dim=3) @ v


@wrong("attention", "the whole model's width")
def attention_model_width(q, k, v):
    width = q.shape[1] * q.shape[3]
    return F.softmax(q @ k.transpose(2, 3) / width**0.5, dim=3) @ v


@wrong("attention", "the number of keys")
def attention_root_tokens(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / math.sqrt(k.size(2)), dim=3) @ v


@wrong("attention", "the number of queries")
def attention_root_queries(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[2]), dim=3) @ v


@wrong("attention", "the number of heads")
def attention_root_heads(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / q.shape[1] ** 0.5, dim=3) @ v


@wrong("attention", "scale comes after the softmax")
def attention_scales_weights(q, k, v):
    return F.softmax(q @ k.transpose(2, 3), dim=3) / q.shape[-1] ** 0.5 @ v


@wrong("attention", "over the images of the batch")
def attention_softmax_dim_0(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=0) @ v


@wrong("attention", "over queries and keys together")
def attention_softmax_all(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    return F.softmax(scores.flatten(2), dim=2).reshape(scores.shape) @ v


@wrong("attention", "divided by its square root")
def attention_scales_both(q, k, v):
    return F.softmax((q / q.shape[3] ** 0.5) @ (k / k.shape[3] ** 0.5).mT, dim=-1) @ v


@wrong("attention", "stopped with RuntimeError")
def attention_no_transpose(q, k, v):
    return (q @ k / q.shape[3] ** 0.5).softmax(-1) @ v


@wrong("attention", "runs over the queries")
def attention_softmax_dim_2(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=2) @ v


@wrong("attention", "runs over the heads")
def attention_softmax_dim_1(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=1) @ v


@wrong("attention", "as in a language model")
def attention_causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@wrong("attention", "There is no softmax")
def attention_linear(q, k, v):
    return q @ k.transpose(2, 3) @ v / q.shape[3] ** 0.5


@wrong("attention", "These are the weights")
def attention_maps(q, k, v):
    return F.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=-1)


@wrong("attention", "go through a sigmoid")
def attention_sigmoid(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return scores.sigmoid() @ v


@wrong("attention", "divided by their sum; a softmax")
def attention_over_sum(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return scores / scores.sum(dim=-1, keepdim=True) @ v


@wrong("attention", "exponentials are not divided")
def attention_exp_only(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return scores.exp() @ v


@wrong("attention", "log_softmax is for losses")
def attention_log(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return F.log_softmax(scores, dim=-1) @ v


@wrong("attention", "wrong sign")
def attention_minus(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return F.softmax(-scores, dim=-1) @ v


@wrong("attention", "the mean of the keys")
def attention_mean_of_keys(q, k, v):
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    return F.softmax(scores, dim=-1) @ k


@wrong("attention", "compared with values")
def attention_scores_of_values(q, k, v):
    return F.scaled_dot_product_attention(q, v, v)


@wrong("attention", "a residual connection")
def attention_adds_queries(q, k, v):
    return q + F.scaled_dot_product_attention(q, k, v)


@wrong("attention", "normalized first")
def attention_cosine(q, k, v):
    q, k = (z / z.norm(dim=-1, keepdim=True) for z in (q, k))
    return F.scaled_dot_product_attention(q, k, v)


@wrong("attention", "divided by the number of keys")
def attention_linear_mean(q, k, v):
    return (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5 @ v / k.shape[-2]


@wrong("attention", "depends on their lengths too")
def attention_cosines(q, k, v):
    scores = F.cosine_similarity(q.unsqueeze(3), k.unsqueeze(2), dim=-1)
    return scores.softmax(dim=-1) @ v


@wrong("attention", "comes twice")
def attention_two_softmaxes(q, k, v):
    weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
    return torch.softmax(weights, dim=-1) @ v


@wrong("attention", "to the best key")
def attention_best_key(q, k, v):
    best = (q @ k.mT).argmax(dim=-1, keepdim=True)
    return torch.take_along_dim(v, best, dim=2)


# ---- multi_head


@right("multi_head")
def multi_head_einops(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(attention_fused(q, k, v), "n h t d -> n t (h d)")


@right("multi_head")
def multi_head_view(q, k, v, num_heads):
    n, _, width = q.shape
    q, k, v = (x.view(n, -1, num_heads, width // num_heads).transpose(1, 2) for x in (q, k, v))
    return attention_by_hand(q, k, v).transpose(1, 2).reshape(n, -1, width)


@right("multi_head")
def multi_head_torch(q, k, v, num_heads):
    width = q.shape[-1]
    eye = torch.eye(width, dtype=q.dtype)
    out, _ = F.multi_head_attention_forward(
        *(x.transpose(0, 1) for x in (q, k, v)),
        embed_dim_to_check=width,
        num_heads=num_heads,
        in_proj_weight=torch.cat([eye] * 3),
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=eye,
        out_proj_bias=None,
    )
    return out.transpose(0, 1)


@right("multi_head")
def multi_head_chunks(q, k, v, num_heads):
    heads = [x.chunk(num_heads, dim=-1) for x in (q, k, v)]
    return torch.cat([attention_fused(*(x[:, None] for x in one))[:, 0] for one in zip(*heads)], -1)


@wrong("multi_head", "merged by a reshape alone")
def multi_head_no_transpose_back(q, k, v, num_heads):
    n, t, width = q.shape
    q, k, v = (x.view(n, -1, num_heads, width // num_heads).transpose(1, 2) for x in (q, k, v))
    return attention_fused(q, k, v).reshape(n, t, width)


@wrong("multi_head", "split by a reshape alone")
def multi_head_no_transpose(q, k, v, num_heads):
    n, t, width = q.shape
    q, k, v = (x.reshape(n, num_heads, -1, width // num_heads) for x in (q, k, v))
    return attention_fused(q, k, v).transpose(1, 2).reshape(n, t, width)


@wrong("multi_head", "reshapes that move nothing")
def multi_head_reshapes_only(q, k, v, num_heads):
    n, t, width = q.shape
    q, k, v = (x.reshape(n, num_heads, -1, width // num_heads) for x in (q, k, v))
    return attention_fused(q, k, v).reshape(n, t, width)


@wrong("multi_head", "every h-th channel")
def multi_head_alternating(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (d h) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(attention_fused(q, k, v), "n h t d -> n t (d h)")


@wrong("multi_head", "channels alternating")
def multi_head_sewn_alternating(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return attention_fused(q, k, v).permute(0, 2, 3, 1).flatten(2)


@wrong("multi_head", "the whole width D")
def multi_head_root_width(q, k, v, num_heads):
    scale = q.shape[-1] ** -0.5
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, scale=scale), "n h t d -> n t (h d)")


@wrong("multi_head", "used as the width of a head")
def multi_head_width_for_number(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", d=num_heads) for x in (q, k, v))
    return rearrange(attention_fused(q, k, v), "n h t d -> n t (h d)")


@wrong("multi_head", "still have an axis of their own")
def multi_head_not_merged(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return attention_fused(q, k, v)


@wrong("multi_head", "only one head")
def multi_head_single(q, k, v, num_heads):
    return attention_fused(q[:, None], k[:, None], v[:, None])[:, 0]


@wrong("multi_head", "runs over the queries")
def multi_head_softmax(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(attention_softmax_dim_2(q, k, v), "n h t d -> n t (h d)")


@wrong("multi_head", "not scaled")
def multi_head_unscaled(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(attention_unscaled(q, k, v), "n h t d -> n t (h d)")


@wrong("multi_head", "images and heads exchanged")
def multi_head_exchanged_back(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> (n h) t d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "(h n) t d -> n t (h d)", h=num_heads)


@wrong("multi_head", "as in a language model")
def multi_head_causal(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, is_causal=True), "n h t d -> n t (h d)")


@wrong("multi_head", "divided by its square root")
def multi_head_over_d(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, scale=1 / q.shape[-1]), "n h t d -> n t (h d)")


@wrong("multi_head", "from the number of tokens")
def multi_head_root_tokens(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(
        F.scaled_dot_product_attention(q, k, v, scale=q.shape[2] ** -0.5), "n h t d -> n t (h d)"
    )


@wrong("multi_head", "from the number of heads")
def multi_head_root_heads(q, k, v, num_heads):
    q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, scale=num_heads**-0.5), "n h t d -> n t (h d)")


@wrong("multi_head", "averaged over the heads")
def multi_head_mean_weights(q, k, v, num_heads):
    n, t, width = q.shape
    qs, ks, vs = (x.reshape(n, -1, num_heads, width // num_heads).transpose(1, 2) for x in (q, k, v))
    weights = (qs @ ks.mT / (width // num_heads) ** 0.5).softmax(dim=-1).mean(dim=1)
    return (weights[:, None] @ vs).transpose(1, 2).reshape(n, t, width)


@wrong("multi_head", "attend to each other")
def multi_head_over_heads(q, k, v, num_heads):
    n, t, width = q.shape
    qs, ks, vs = (x.reshape(n, -1, num_heads, width // num_heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(qs, ks, vs).reshape(n, t, width)


@wrong("multi_head", "The results of the heads are averaged")
def multi_head_mean_result(q, k, v, num_heads):
    qs, ks, vs = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(qs, ks, vs).mean(dim=1)


@wrong("multi_head", "share one softmax")
def multi_head_summed_scores(q, k, v, num_heads):
    scores = q @ k.mT / (q.shape[-1] // num_heads) ** 0.5
    return scores.softmax(dim=-1) @ v


# ---- add_scores


@right("add_scores")
def add_scores_one_side(q1, k1, q2, k2):
    return torch.cat([q1, q2], -1), 2**0.5 * torch.cat([k1, k2], -1)


@right("add_scores")
def add_scores_both_sides(q1, k1, q2, k2):
    d = q1.shape[-1]
    factor = ((2 * d) ** 0.5 / d**0.5) ** 0.5
    return [factor * torch.cat(pair, dim=3) for pair in ((q2, q1), (k2, k1))]


@right("add_scores")
def add_scores_interleaved(q1, k1, q2, k2):
    q, k = (torch.stack(pair, dim=-1).flatten(3) for pair in ((q1, q2), (k1, k2)))
    return q * math.sqrt(2), k


@wrong("add_scores", "too small by √2")
def add_scores_plain(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=-1), torch.cat([k1, k2], dim=-1)


@wrong("add_scores", "too large by √2")
def add_scores_root_on_both(q1, k1, q2, k2):
    return [2**0.5 * torch.cat(pair, dim=-1) for pair in ((q1, q2), (k1, k2))]


@wrong("add_scores", "divided by √d twice")
def add_scores_scaled_already(q1, k1, q2, k2):
    q, k = add_scores_one_side(q1, k1, q2, k2)
    return q / q1.shape[-1] ** 0.5, k


@wrong("add_scores", "The heads are added")
def add_scores_sums(q1, k1, q2, k2):
    return q1 + q2, k1 + k2


@wrong("add_scores", "The heads are averaged")
def add_scores_means(q1, k1, q2, k2):
    return torch.stack([q1, q2]).mean(0), torch.stack([k1, k2]).mean(0)


@wrong("add_scores", "multiplied entry by entry")
def add_scores_products(q1, k1, q2, k2):
    return q1 * q2, k1 * k2


@wrong("add_scores", "in different orders")
def add_scores_crossed(q1, k1, q2, k2):
    return 2**0.5 * torch.cat([q1, q2], dim=-1), torch.cat([k2, k1], dim=-1)


@wrong("add_scores", "axis of the heads")
def add_scores_more_heads(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=1), torch.cat([k1, k2], dim=1)


@wrong("add_scores", "axis of the tokens")
def add_scores_more_tokens(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=2), torch.cat([k1, k2], dim=2)


@wrong("add_scores", "Only the first head")
def add_scores_first(q1, k1, q2, k2):
    return q1, k1


@wrong("add_scores", "Only the second head")
def add_scores_second(q1, k1, q2, k2):
    return q2, k2


@wrong("add_scores", "two tensors, the queries and the keys")
def add_scores_scores(q1, k1, q2, k2):
    return ((q1 @ k1.mT + q2 @ k2.mT) / q1.shape[-1] ** 0.5).softmax(-1), q1, k1


@wrong("add_scores", "two tensors, the queries and the keys")
def add_scores_returns_scores(q1, k1, q2, k2):
    return (q1 @ k1.mT + q2 @ k2.mT) / q1.shape[-1] ** 0.5


@wrong("add_scores", "do not fit together")
def add_scores_keys_added(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=-1), k1 + k2


@wrong("add_scores", "different orders, and")
def add_scores_crossed_plain(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=-1), torch.cat([k2, k1], dim=-1)


@wrong("add_scores", "keys stand in both halves")
def add_scores_first_keys_twice(q1, k1, q2, k2):
    return math.sqrt(2) * torch.cat([q1, q2], dim=-1), torch.cat([k1, k1], dim=-1)


@wrong("add_scores", "not scaled at all")
def add_scores_undone(q1, k1, q2, k2):
    q, k = torch.cat([q1, q2], -1), torch.cat([k1, k2], -1)
    return q * q.shape[-1] ** 0.5, k


@wrong("add_scores", "half of what they should be")
def add_scores_divided(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=-1), torch.cat([k1, k2], dim=-1) / math.sqrt(2)


@wrong("add_scores", "on the first head only")
def add_scores_first_factor(q1, k1, q2, k2):
    return torch.cat([q1, q2], dim=-1), torch.cat([math.sqrt(2) * k1, k2], dim=-1)


@wrong("add_scores", "on the second head only")
def add_scores_second_factor(q1, k1, q2, k2):
    return torch.cat([q1, q2 * math.sqrt(2)], dim=-1), torch.cat([k1, k2], dim=-1)


# ---- in_context


@right("in_context")
def in_context_append(x, c, blocks):
    tokens = x.shape[1]
    x = torch.cat([x, c], dim=1)
    for block in blocks:
        x = block(x)
    return x[:, :tokens]


@right("in_context")
def in_context_prepend(x, c, blocks):
    return nn.Sequential(*(Wrapped(block) for block in blocks))(torch.cat([c, x], dim=1))[:, c.shape[1] :]


class Wrapped(nn.Module):
    """A callable as a module."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


@wrong("in_context", "still there: remove them")
def in_context_unstripped(x, c, blocks):
    x = torch.cat([x, c], dim=1)
    for block in blocks:
        x = block(x)
    return x


@wrong("in_context", "still there, at the front")
def in_context_front_unstripped(x, c, blocks):
    return in_context_unstripped(c, x, blocks)


@wrong("in_context", "appended at the end")
def in_context_strips_front(x, c, blocks):
    return in_context_unstripped(x, c, blocks)[:, 2:]


@wrong("in_context", "placed at the front")
def in_context_strips_end(x, c, blocks):
    return in_context_unstripped(c, x, blocks)[:, : x.shape[1]]


@wrong("in_context", "gets the two tokens fresh")
def in_context_per_block(x, c, blocks):
    t = x.shape[1]
    for block in blocks:
        x = block(torch.cat([x, c], dim=1))
        x = x[:, :t]
    return x


@wrong("in_context", "after the first block")
def in_context_leaves_early(x, c, blocks):
    t = x.shape[1]
    x = torch.cat([x, c], dim=1)
    for block in blocks:
        x = block(x)[:, :t]
    return x


@wrong("in_context", "added to the image tokens")
def in_context_added(x, c, blocks):
    x = x + c[:, :1] + c[:, 1:]
    for block in blocks:
        x = block(x)
    return x


@wrong("in_context", "added up to one token")
def in_context_one_token(x, c, blocks):
    t = x.shape[1]
    x = torch.cat([x, c[:, :1] + c[:, 1:]], dim=1)
    for block in blocks:
        x = block(x)
    return x[:, :t]


@wrong("in_context", "not used at all")
def in_context_ignored(x, c, blocks):
    for block in blocks:
        x = block(x)
    return x


@wrong("in_context", "as they went in")
def in_context_not_assigned(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks:
        block(tokens)
    return tokens[:, : x.shape[1]]


@wrong("in_context", "as they went in")
def in_context_loop_variable(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks:
        out = block  # noqa: F841
    return tokens[:, : x.size(1)]


@wrong("in_context", "Only the last block has an effect")
def in_context_last_only(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks:
        out = block(tokens)
    return out[:, : x.shape[1]]


@wrong("in_context", "return inside the loop")
def in_context_returns_early(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks:
        tokens = block(tokens)
        return tokens[:, : x.shape[1]]


@wrong("in_context", "before the last block")
def in_context_leaves_before_the_last(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks[:-1]:
        tokens = block(tokens)
    return blocks[-1](tokens[:, : x.shape[1]])


@wrong("in_context", "the sequence grows")
def in_context_grows(x, c, blocks):
    T = x.shape[1]
    for block in blocks:
        x = block(torch.cat([x, c], dim=1))
    return x[:, :T]


@wrong("in_context", "reverse order")
def in_context_reversed(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in reversed(blocks):
        tokens = block(tokens)
    return tokens[:, :-2]


@wrong("in_context", "before each block; it should")
def in_context_added_each_time(x, c, blocks):
    for block in blocks:
        x = block(x + c.sum(dim=1, keepdim=True))
    return x


@wrong("in_context", "averaged to one token")
def in_context_mean_token(x, c, blocks):
    return in_context_append(x, c.mean(dim=1, keepdim=True), blocks)


@wrong("in_context", "The label is missing")
def in_context_t_only(x, c, blocks):
    return in_context_append(x, c[:, 0].unsqueeze(1), blocks)


@wrong("in_context", "The timestep is missing")
def in_context_y_only(x, c, blocks):
    return in_context_append(x, c[:, -1:], blocks)


@wrong("in_context", "residuals of their own")
def in_context_residual(x, c, blocks):
    return x + in_context_append(x, c, blocks)


@wrong("in_context", "stopped with")
def in_context_wrong_axis(x, c, blocks):
    tokens = torch.cat([x, c], dim=-1)
    for block in blocks:
        tokens = block(tokens)
    return tokens[..., : x.shape[-1]]


@wrong("in_context", "must return a tensor")
def in_context_split(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks:
        tokens = block(tokens)
    return tokens.split([x.shape[1], 2], dim=1)


@wrong("in_context", "once more")
def in_context_own_residual(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    for block in blocks:
        tokens = tokens + block(tokens)
    return tokens[:, : x.shape[1]]


@wrong("in_context", "are added up")
def in_context_sum_of_blocks(x, c, blocks):
    tokens = torch.cat([x, c], dim=1)
    return torch.stack([block(tokens) for block in blocks]).sum(dim=0)[:, :-2]


# ---- label_mask


@right("label_mask")
def label_mask_column(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:-1, -1] = False
    return mask


@right("label_mask")
def label_mask_compared(T):
    token = torch.arange(T + 2)
    return (token[None, :] != T + 1) | (token[:, None] == T + 1)


@right("label_mask")
def label_mask_lists(T):
    rows = [[True] * (T + 1) + [False] for _ in range(T + 1)]
    return torch.tensor(rows + [[True] * (T + 2)])


@wrong("label_mask", "by a detour")
def label_mask_image_only(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:T, -1] = False
    return mask


@wrong("label_mask", "Only t is kept from y")
def label_mask_t_only(T):
    mask = torch.ones(T + 2, T + 2).bool()
    mask[-2, -1] = False
    return mask


@wrong("label_mask", "Nothing is closed")
def label_mask_open(T):
    return torch.ones(T + 2, T + 2, dtype=torch.bool)


@wrong("label_mask", "The row of y is closed: then")
def label_mask_row(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[-1] = False
    return mask


@wrong("label_mask", "The row of y is closed but for y")
def label_mask_row_of_others(T):
    return label_mask_column(T).T


@wrong("label_mask", "even for y itself")
def label_mask_whole_column(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:, -1] = False
    return mask


@wrong("label_mask", "does no harm")
def label_mask_both_ways(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:-1, -1] = mask[-1, :-1] = False
    return mask


@wrong("label_mask", "attends to nothing at all")
def label_mask_cross(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:, -1] = mask[-1] = False
    return mask


@wrong("label_mask", "True and False are exchanged")
def label_mask_inverted(T):
    blocked = torch.zeros(T + 2, T + 2, dtype=torch.bool)
    blocked[:-1, -1] = True
    return blocked


@wrong("label_mask", "This cuts off t")
def label_mask_wrong_token(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:, T] = False
    mask[T, T] = True
    return mask


@wrong("label_mask", "The image loses t, not y")
def label_mask_image_loses_t(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:T, T] = False
    return mask


@wrong("label_mask", "loses t as well as y")
def label_mask_both_tokens(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:T, T:] = False
    return mask


@wrong("label_mask", "causal mask")
def label_mask_causal(T):
    return torch.tril(torch.ones(T + 2, T + 2)).bool()


@wrong("label_mask", "cuts off the first patch")
def label_mask_front(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[1:, 0] = False
    return mask


@wrong("label_mask", "must be torch.bool")
def label_mask_additive(T):
    mask = torch.zeros(T + 2, T + 2)
    mask[:-1, -1] = -torch.inf
    return mask


@wrong("label_mask", "has shape")
def label_mask_without_t(T):
    return label_mask_column(T - 1)


# ---- cross_attention


@right("cross_attention")
def cross_attention_fused(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    return F.scaled_dot_product_attention(q, k, v)


@right("cross_attention")
def cross_attention_sigmoid(x, context, w_q, w_k, w_v):
    # With two keys, a softmax is a sigmoid of the difference.
    first, second = context.unbind(1)
    gap = einsum(x @ w_q, (first - second) @ w_k, "n t d, n d -> n t") / x.shape[-1] ** 0.5
    share = gap.sigmoid()[..., None]
    return share * (first @ w_v)[:, None] + (1 - share) * (second @ w_v)[:, None]


@wrong("cross_attention", "that is self-attention")
def cross_attention_self(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, x @ w_k, x @ w_v)


@wrong("cross_attention", "The condition gives the queries")
def cross_attention_reversed(x, context, w_q, w_k, w_v):
    return cross_attention_fused(context, x, w_q, w_k, w_v)


@wrong("cross_attention", "must come from the patches")
def cross_attention_context_asks_itself(x, context, w_q, w_k, w_v):
    return cross_attention_self(context, context, w_q, w_k, w_v)


@wrong("cross_attention", "single key")
def cross_attention_summed(x, context, w_q, w_k, w_v):
    return cross_attention_fused(x, context.sum(dim=1, keepdim=True), w_q, w_k, w_v)


@wrong("cross_attention", "matrices of keys and values")
def cross_attention_keys_for_values(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, context @ w_v, context @ w_k)


@wrong("cross_attention", "runs over the queries")
def cross_attention_softmax(x, context, w_q, w_k, w_v):
    scores = (x @ w_q) @ (context @ w_k).transpose(1, 2) / x.shape[-1] ** 0.5
    return scores.softmax(1) @ (context @ w_v)


@wrong("cross_attention", "not scaled")
def cross_attention_unscaled(x, context, w_q, w_k, w_v):
    return ((x @ w_q) @ (context @ w_k).transpose(1, 2)).softmax(-1) @ (context @ w_v)


@wrong("cross_attention", "the block's business")
def cross_attention_residual(x, context, w_q, w_k, w_v):
    return x + cross_attention_fused(x, context, w_q, w_k, w_v)


@wrong("cross_attention", "without a transpose")
def cross_attention_linear(x, context, w_q, w_k, w_v):
    q, k, v = F.linear(x, w_q), F.linear(context, w_k), F.linear(context, w_v)
    return F.scaled_dot_product_attention(q, k, v)


@wrong("cross_attention", "without a transpose")
def cross_attention_einsum_transposed(x, context, w_q, w_k, w_v):
    q = torch.einsum("ntd,ed->nte", x, w_q)
    k, v = (torch.einsum("nsd,ed->nse", context, w) for w in (w_k, w_v))
    return torch.einsum("nts,nsd->ntd", (q @ k.mT / x.shape[-1] ** 0.5).softmax(-1), v)


@wrong("cross_attention", "lacks the label")
def cross_attention_t_only(x, context, w_q, w_k, w_v):
    return cross_attention_fused(x, context[:, :1], w_q, w_k, w_v)


@wrong("cross_attention", "from image and condition together")
def cross_attention_concatenated(x, context, w_q, w_k, w_v):
    return cross_attention_fused(x, torch.cat([x, context], dim=1), w_q, w_k, w_v)


@wrong("cross_attention", "multiply them with w_q first")
def cross_attention_raw_queries(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x, context @ w_k, context @ w_v)


@wrong("cross_attention", "multiply it with w_k first")
def cross_attention_raw_keys(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, context, context @ w_v)


@wrong("cross_attention", "multiply it with w_v first")
def cross_attention_raw_values(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, context @ w_k, context)


@wrong("cross_attention", "matrices of queries and keys")
def cross_attention_keys_for_queries(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_k, context @ w_q, context @ w_v)


@wrong("cross_attention", "divided by D")
def cross_attention_over_d(x, context, w_q, w_k, w_v):
    return ((x @ w_q) @ (context @ w_k).mT / x.shape[-1]).softmax(-1) @ (context @ w_v)


@wrong("cross_attention", "number of keys")
def cross_attention_root_of_keys(x, context, w_q, w_k, w_v):
    return ((x @ w_q) @ (context @ w_k).mT / math.sqrt(context.shape[1])).softmax(-1) @ (context @ w_v)


@wrong("cross_attention", "number of image tokens")
def cross_attention_root_of_tokens(x, context, w_q, w_k, w_v):
    return ((x @ w_q) @ (context @ w_k).mT / math.sqrt(x.shape[1])).softmax(-1) @ (context @ w_v)


@wrong("cross_attention", "There is no softmax")
def cross_attention_linear_weights(x, context, w_q, w_k, w_v):
    return (x @ w_q) @ (context @ w_k).mT / x.shape[-1] ** 0.5 @ (context @ w_v)


@wrong("cross_attention", "a sigmoid of its own")
def cross_attention_sigmoids(x, context, w_q, w_k, w_v):
    return torch.sigmoid((x @ w_q) @ (context @ w_k).mT / x.shape[-1] ** 0.5) @ (context @ w_v)


@wrong("cross_attention", "has shape")
def cross_attention_weights(x, context, w_q, w_k, w_v):
    return torch.softmax((x @ w_q) @ (context @ w_k).mT / x.shape[-1] ** 0.5, dim=-1)


@wrong("cross_attention", "stopped with")
def cross_attention_t_for_transpose(x, context, w_q, w_k, w_v):
    return ((x @ w_q) @ (context @ w_k).view(x.shape[2], -1)).softmax(-1) @ (context @ w_v)


@wrong("cross_attention", "The values are made with w_k")
def cross_attention_values_by_keys(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, context @ w_k, context @ w_k)


@wrong("cross_attention", "The keys are made with w_q")
def cross_attention_keys_by_queries(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, context @ w_q, context @ w_v)


@wrong("cross_attention", "The keys are made with w_v")
def cross_attention_keys_by_values(x, context, w_q, w_k, w_v):
    return F.scaled_dot_product_attention(x @ w_q, context @ w_v, context @ w_v)


@wrong("cross_attention", "The queries are added")
def cross_attention_query_residual(x, context, w_q, w_k, w_v):
    q = x @ w_q
    return q + F.scaled_dot_product_attention(q, context @ w_k, context @ w_v)


# ---- padded_attention


def places_of(k, lengths):
    """(N, 1, S), True where a word stands."""
    return (torch.arange(k.shape[1]) < lengths[:, None])[:, None]


@right("padded_attention")
def padded_attention_fused(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=places_of(k, lengths))


@right("padded_attention")
def padded_attention_loop(q, k, v, lengths):
    rows = [
        F.scaled_dot_product_attention(q[i], k[i, : lengths[i]], v[i, : lengths[i]]) for i in range(len(q))
    ]
    return torch.stack(rows)


@right("padded_attention")
def padded_attention_renormalized(q, k, v, lengths):
    weights = (q @ k.mT / math.sqrt(q.shape[2])).softmax(-1) * places_of(k, lengths)
    return weights / weights.sum(-1, keepdim=True) @ v


@wrong("padded_attention", "lengths is not used")
def padded_attention_ignores(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k, v)


@wrong("padded_attention", "after the softmax")
def padded_attention_late(q, k, v, lengths):
    weights = (q @ k.mT / math.sqrt(q.shape[2])).softmax(-1)
    return weights.masked_fill(~places_of(k, lengths), 0) @ v


@wrong("padded_attention", "after the softmax")
def padded_attention_zero_values(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k, v * places_of(k, lengths).mT)


@wrong("padded_attention", "which is no small score")
def padded_attention_zero_scores(q, k, v, lengths):
    scores = q @ k.mT / math.sqrt(q.shape[2])
    return scores.masked_fill(~places_of(k, lengths), 0.0).softmax(-1) @ v


@wrong("padded_attention", "which is no small score")
def padded_attention_zero_keys(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k * places_of(k, lengths).mT, v)


@wrong("padded_attention", "but it still gets weight")
def padded_attention_zero_padding(q, k, v, lengths):
    words = places_of(k, lengths).mT
    return F.scaled_dot_product_attention(q, k * words, v * words)


@wrong("padded_attention", "One place too many")
def padded_attention_one_more(q, k, v, lengths):
    mask = torch.arange(k.shape[1]) <= lengths[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])


@wrong("padded_attention", "One word too few")
def padded_attention_one_less(q, k, v, lengths):
    scores = q @ k.mT / math.sqrt(q.shape[2])
    return scores.masked_fill(~places_of(k, lengths - 1), -math.inf).softmax(-1) @ v


@wrong("padded_attention", "places count from 0")
def padded_attention_from_one(q, k, v, lengths):
    places = torch.arange(k.shape[1])
    mask = (places >= 1) & (places < lengths[:, None])
    scores = q @ k.mT / math.sqrt(q.shape[2])
    return scores.masked_fill(~mask[:, None], -math.inf).softmax(-1) @ v


@wrong("padded_attention", "The first sentence's length")
def padded_attention_first(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k[:, : lengths[0]], v[:, : lengths[0]])


@wrong("padded_attention", "cut to the longest")
def padded_attention_longest(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k[:, : lengths.max()], v[:, : lengths.max()])


@wrong("padded_attention", "cut to the shortest")
def padded_attention_shortest(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k[:, : lengths.min()], v[:, : lengths.min()])


@wrong("padded_attention", "Words and padding are exchanged")
def padded_attention_inverted(q, k, v, lengths):
    scores = q @ k.mT / math.sqrt(q.shape[2])
    return scores.masked_fill(places_of(k, lengths), -math.inf).softmax(-1) @ v


@wrong("padded_attention", "All words have the same weight")
def padded_attention_mean(q, k, v, lengths):
    means = [v[i, :n].mean(dim=0) for i, n in enumerate(lengths)]
    return torch.stack(means)[:, None].expand_as(q)


@wrong("padded_attention", "not scaled")
def padded_attention_unscaled(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=places_of(k, lengths), scale=1.0)


@wrong("padded_attention", "divided by D")
def padded_attention_over_d(q, k, v, lengths):
    return F.scaled_dot_product_attention(q / q.shape[-1] ** 0.5, k, v, attn_mask=places_of(k, lengths))


@wrong("padded_attention", "runs over the queries")
def padded_attention_wrong_axis(q, k, v, lengths):
    return ((q @ k.mT / math.sqrt(q.shape[2])).softmax(1) * places_of(k, lengths)) @ v


@wrong("padded_attention", "stopped with")
def padded_attention_no_axis(q, k, v, lengths):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.arange(k.shape[1] + 1) < lengths[:, None])


@wrong("padded_attention", "The last places")
def padded_attention_left_padding(q, k, v, lengths):
    size = k.shape[1]
    real = torch.arange(size) >= size - lengths[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None])


@wrong("padded_attention", "plus infinity")
def padded_attention_plus_infinity(q, k, v, lengths):
    padding = torch.arange(k.shape[1]) >= lengths[:, None]
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(padding[:, None], float("inf")).softmax(dim=-1) @ v


@wrong("padded_attention", "are -10")
def padded_attention_minus_ten(q, k, v, lengths):
    padding = torch.arange(k.shape[1]) >= lengths[:, None]
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return torch.where(padding[:, None], -10.0, scores).softmax(dim=-1) @ v


@wrong("padded_attention", "are -1, a score")
def padded_attention_minus_one(q, k, v, lengths):
    padding = torch.arange(k.shape[1]) >= lengths[:, None]
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return torch.where(padding[:, None], -1.0, scores).softmax(dim=-1) @ v


@wrong("padded_attention", "made of numbers")
def padded_attention_float_mask(q, k, v, lengths):
    real = torch.arange(k.shape[1]) < lengths[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None].to(q.dtype))


@wrong("padded_attention", "multiplied with the scores")
def padded_attention_times_infinity(q, k, v, lengths):
    padding = torch.arange(k.shape[1]) >= lengths[:, None]
    factor = torch.ones(padding.shape, dtype=q.dtype).masked_fill(padding, float("-inf"))
    return (q @ k.mT / q.shape[-1] ** 0.5 * factor[:, None]).softmax(dim=-1) @ v


# ---- layer_norm


@right("layer_norm")
def layer_norm_mean_of_squares(x, eps):
    mean = x.mean(-1, keepdim=True)
    variance = (x**2).mean(-1, keepdim=True) - mean**2
    return (x - mean) * torch.rsqrt(variance + eps)


@right("layer_norm")
def layer_norm_loop(x, eps):
    out = torch.empty_like(x)
    for n, image in enumerate(x):
        for t, token in enumerate(image):
            variance, mean = torch.var_mean(token, correction=0)
            out[n, t] = (token - mean) / math.sqrt(variance + eps)
    return out


@wrong("layer_norm", "PyTorch's own layer norm")
def layer_norm_torch(x, eps):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


@wrong("layer_norm", "PyTorch's own layer norm")
def layer_norm_module(x, eps):
    return nn.LayerNorm(x.shape[-1], eps=eps, elementwise_affine=False)(x)


@wrong("layer_norm", "added to the standard deviation: two mistakes")
def layer_norm_first_try(x, eps):
    return (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + eps)


@wrong("layer_norm", "constant is not used: two mistakes")
def layer_norm_std_without_eps(x, eps):
    return (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, keepdim=True)


@wrong("layer_norm", "an RMS norm")
def layer_norm_rms(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


@wrong("layer_norm", "only centered")
def layer_norm_centered(x, eps):
    return x - x.mean(-1, keepdim=True)


@wrong("layer_norm", "one standard deviation for everything")
def layer_norm_no_dim(x, eps):
    return (x - x.mean()) / (x.std() + eps)


@wrong("layer_norm", "The norm divides by D - 1; a layer norm")
def layer_norm_std(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps) ** 0.5


@wrong("layer_norm", "belongs under the root")
def layer_norm_eps_outside(x, eps):
    middle = x - x.mean(-1, keepdim=True)
    return middle / (middle.square().mean(-1, keepdim=True).sqrt() + eps)


@wrong("layer_norm", "small tokens are scaled up")
def layer_norm_no_eps(x, eps):
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)


@wrong("layer_norm", "always 1e-5")
def layer_norm_default_eps(x, eps):
    return F.layer_norm(x, x.shape[-1:])


@wrong("layer_norm", "divides by the variance")
def layer_norm_variance(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps)


@wrong("layer_norm", "not subtracted before")
def layer_norm_no_mean(x, eps):
    return x / torch.sqrt(x.var(-1, keepdim=True, correction=0) + eps)


@wrong("layer_norm", "runs over the tokens")
def layer_norm_over_tokens(x, eps):
    return F.layer_norm(x.mT, x.shape[1:2], eps=eps).mT


@wrong("layer_norm", "depends on its neighbors")
def layer_norm_over_batch(x, eps):
    return (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()


@wrong("layer_norm", "one mean for each image")
def layer_norm_image(x, eps):
    return F.layer_norm(x, x.shape[1:], eps=eps)


@wrong("layer_norm", "one mean for all images")
def layer_norm_everything(x, eps):
    return (x - x.mean()) / (x.var(correction=0) + eps) ** 0.5


@wrong("layer_norm", "stopped with RuntimeError")
def layer_norm_no_keepdim(x, eps):
    return (x - x.mean(-1)[..., :-1, None]) / x.std(-1)


@wrong("layer_norm", "standard deviation stands under the root")
def layer_norm_std_in_root(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / torch.sqrt(x.std(-1, keepdim=True, correction=0) + eps)


@wrong("layer_norm", "squared deviations are summed")
def layer_norm_sum(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / torch.sqrt((centered**2).sum(-1, keepdim=True) + eps)


@wrong("layer_norm", "parentheses are missing")
def layer_norm_parentheses(x, eps):
    return x - x.mean(-1, keepdim=True) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + eps)


@wrong("layer_norm", "The mean of the squares is taken")
def layer_norm_mean_square(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / torch.sqrt((x**2).mean(-1, keepdim=True) + eps)


@wrong("layer_norm", "The root of eps")
def layer_norm_root_eps(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / (x.var(-1, keepdim=True, correction=0).sqrt() + math.sqrt(eps))


@wrong("layer_norm", "mean absolute deviation")
def layer_norm_absolute(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.abs().mean(-1, keepdim=True) + eps)


@wrong("layer_norm", "and that divides by D - 1")
def layer_norm_variance_unbiased(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered / (x.var(-1, keepdim=True) + eps)


@wrong("layer_norm", "It multiplies by the root")
def layer_norm_multiplies(x, eps):
    centered = x - x.mean(-1, keepdim=True)
    return centered * torch.sqrt(x.var(-1, keepdim=True, correction=0) + eps)


@wrong("layer_norm", "the mean is not")
def layer_norm_mean_undivided(x, eps):
    variance = x.var(dim=-1, keepdim=True, correction=0)
    return x / torch.sqrt(variance + eps) - x.mean(dim=-1, keepdim=True)


@wrong("layer_norm", "The mean deviation is squared")
def layer_norm_square_of_mean(x, eps):
    deviation = x - x.mean(dim=-1, keepdim=True)
    return deviation / torch.sqrt(deviation.mean(dim=-1, keepdim=True) ** 2 + eps)


@wrong("layer_norm", "subtracted from the variance")
def layer_norm_minus_eps(x, eps):
    deviation = x - x.mean(dim=-1, keepdim=True)
    return deviation / torch.sqrt((deviation**2).mean(dim=-1, keepdim=True) - eps)


@wrong("layer_norm", "constant is squared")
def layer_norm_squared_eps(x, eps):
    deviation = x - x.mean(dim=-1, keepdim=True)
    return deviation / torch.sqrt((deviation**2).mean(dim=-1, keepdim=True) + eps**2)


# ---- plain_block


@right("plain_block")
def plain_block_two_lines(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    x = x + mlp(norm2(x))
    return x


@right("plain_block")
def plain_block_contributions(x, norm1, attn, norm2, mlp):
    written = attn(norm1(x))
    return x + written + mlp(norm2(x + written))


@right("plain_block")
def plain_block_loop(x, norm1, attn, norm2, mlp):
    stream = x.clone()
    for norm_of, branch in ((norm1, attn), (norm2, mlp)):
        stream += branch(norm_of(stream))
    return stream


@wrong("plain_block", "post-norm")
def plain_block_post_norm(x, norm1, attn, norm2, mlp):
    x = norm1(x + attn(x))
    return norm2(x + mlp(x))


@wrong("plain_block", "on the result of its branch")
def plain_block_norm_behind(x, norm1, attn, norm2, mlp):
    x = x + norm1(attn(x))
    return x + norm2(mlp(x))


@wrong("plain_block", "overwritten with its normalized copy")
def plain_block_overwrites(x, norm1, attn, norm2, mlp):
    x = norm1(x)
    x = x + attn(x)
    x = norm2(x)
    return x + mlp(x)


@wrong("plain_block", "no residual connections")
def plain_block_chain(x, norm1, attn, norm2, mlp):
    return nn.Sequential(*map(Wrapped, (norm1, attn, norm2, mlp)))(x)


@wrong("plain_block", "The attention replaces the stream")
def plain_block_attention_replaces(x, norm1, attn, norm2, mlp):
    x = attn(norm1(x))
    return x + mlp(norm2(x))


@wrong("plain_block", "Only the MLP's result")
def plain_block_returns_mlp(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    return mlp(norm2(x))


@wrong("plain_block", "starts at the block's input again")
def plain_block_skips_to_input(x, norm1, attn, norm2, mlp):
    h = x + attn(norm1(x))
    return x + mlp(norm2(h))


@wrong("plain_block", "the attention's result alone")
def plain_block_mlp_reads_branch(x, norm1, attn, norm2, mlp):
    h = attn(norm1(x))
    return x + h + mlp(norm2(h))


@wrong("plain_block", "parallel")
def plain_block_parallel(x, norm1, attn, norm2, mlp):
    return x + attn(norm1(x)) + mlp(norm2(x))


@wrong("plain_block", "normalized input again")
def plain_block_one_copy(x, norm1, attn, norm2, mlp):
    h = norm1(x)
    x = x + attn(h)
    return x + mlp(h)


@wrong("plain_block", "first norm is used for both")
def plain_block_norm1_twice(x, norm1, attn, norm2, mlp):
    for branch in (attn, mlp):
        x = x + branch(norm1(x))
    return x


@wrong("plain_block", "norms are exchanged")
def plain_block_norms_exchanged(x, norm1, attn, norm2, mlp):
    return plain_block_two_lines(x, norm2, attn, norm1, mlp)


@wrong("plain_block", "norms are not used")
def plain_block_no_norms(x, norm1, attn, norm2, mlp):
    x = x + attn(x)
    return x + mlp(x)


@wrong("plain_block", "The MLP receives the stream as it is")
def plain_block_no_norm2(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    return x + mlp(x)


@wrong("plain_block", "The attention receives the stream as it is")
def plain_block_no_norm1(x, norm1, attn, norm2, mlp):
    x = x + attn(x)
    return x + mlp(norm2(x))


@wrong("plain_block", "The MLP comes before")
def plain_block_mlp_first(x, norm1, attn, norm2, mlp):
    x = x + mlp(norm2(x))
    return x + attn(norm1(x))


@wrong("plain_block", "The MLP is missing")
def plain_block_no_mlp(x, norm1, attn, norm2, mlp):
    return x + attn(norm1(x))


@wrong("plain_block", "once more at the end")
def plain_block_input_twice(x, norm1, attn, norm2, mlp):
    return x + plain_block_two_lines(x, norm1, attn, norm2, mlp)


@wrong("plain_block", "changes its input x")
def plain_block_in_place(x, norm1, attn, norm2, mlp):
    x += attn(norm1(x))
    x += mlp(norm2(x))
    return x


@wrong("plain_block", "the MLP post-norm")
def plain_block_half_post(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    return norm2(x + mlp(x))


@wrong("plain_block", "The second sum starts at the normalized")
def plain_block_second_from_copy(x, norm1, attn, norm2, mlp):
    x = norm2(x + attn(norm1(x)))
    return x + mlp(x)


@wrong("plain_block", "The first sum starts at the normalized")
def plain_block_first_from_copy(x, norm1, attn, norm2, mlp):
    x = norm1(x)
    x = x + attn(x)
    return x + mlp(norm2(x))


@wrong("plain_block", "only reaches the MLP")
def plain_block_only_through_mlp(x, norm1, attn, norm2, mlp):
    return x + mlp(norm2(attn(norm1(x))))


@wrong("plain_block", "The input is missing")
def plain_block_without_input(x, norm1, attn, norm2, mlp):
    h = attn(norm1(x))
    return h + mlp(norm2(x + h))


@wrong("plain_block", "on the attention's result, not")
def plain_block_norm1_behind(x, norm1, attn, norm2, mlp):
    x = x + norm1(attn(x))
    return x + mlp(norm2(x))


@wrong("plain_block", "multiply the stream")
def plain_block_multiplies(x, norm1, attn, norm2, mlp):
    x = x * attn(norm1(x))
    return x * mlp(norm2(x))


@wrong("plain_block", "is subtracted")
def plain_block_subtracts(x, norm1, attn, norm2, mlp):
    x = x - attn(norm1(x))
    return x - mlp(norm2(x))


@wrong("plain_block", "second norm is used for both")
def plain_block_norm2_twice(x, norm1, attn, norm2, mlp):
    return plain_block_two_lines(x, norm2, attn, norm2, mlp)


@wrong("plain_block", "normalized once more")
def plain_block_norm_at_the_end(x, norm1, attn, norm2, mlp):
    return norm2(plain_block_two_lines(x, norm1, attn, norm2, mlp))


# ---- contributions


@right("contributions")
def contributions_stacked(states, weight, eps):
    writes = torch.stack([states[0], *(b - a for a, b in zip(states, states[1:]))])
    centered = writes - writes.mean(dim=-1, keepdim=True)
    std = (states[-1].var(dim=-1, correction=0, keepdim=True) + eps).sqrt()
    return centered / std @ weight.T


@right("contributions")
def contributions_list(states, weight, eps):
    last = states[-1] - states[-1].mean(-1, keepdim=True)
    std = torch.sqrt((last**2).mean(-1) + eps)
    parts, before = [], torch.zeros_like(last)
    for state in states:
        written = state - before
        parts.append(
            torch.einsum("ntd,od,nt->nto", written - written.mean(-1, keepdim=True), weight, 1 / std)
        )
        before = state
    return parts


@right("contributions")
def contributions_weight_centered(states, weight, eps):
    rows = weight - weight.mean(1, keepdim=True)  # the read-out ignores the mean of a token
    std = (states[-1].var(-1, unbiased=False) + eps) ** 0.5
    z = torch.stack(states)
    writes = torch.diff(z, dim=0, prepend=torch.zeros_like(z[:1]))
    return torch.nn.functional.linear(writes, rows) / std[:, :, None]


@right("contributions")
def contributions_read_then_subtract(states, weight, eps):
    std = (states[-1].var(-1, correction=0, keepdim=True) + eps).sqrt()
    read = [(z - z.mean(-1, keepdim=True)) / std @ weight.mT for z in states]
    return tuple([read[0]] + [after - before for before, after in zip(read, read[1:])])


@right("contributions")
def contributions_one_at_a_time(states, weight, eps):
    result = torch.zeros(len(states), *states[0].shape[:2], weight.shape[0], dtype=weight.dtype)
    std = torch.sqrt(states[-1].var(-1, correction=0) + eps)
    for k in range(len(states)):
        written = states[k] - states[k - 1] if k else states[0]
        result[k] = ((written - written.mean(-1)[..., None]) @ weight.T) / std[..., None]
    return result


def read_terms(terms, std, weight):
    """The last steps of an answer: center, divide, read out."""
    return torch.stack([(x - x.mean(-1, keepdim=True)) / std @ weight.T for x in terms])


def last_std(states, eps):
    return (states[-1].var(-1, correction=0, keepdim=True) + eps).sqrt()


def written(states):
    return [states[0], *(b - a for a, b in zip(states, states[1:]))]


@wrong("contributions", "These are read-outs of the states; a block")
def contributions_of_states(states, weight, eps):
    return read_terms(states, last_std(states, eps), weight)


@wrong("contributions", "each with its own norm; a block")
def contributions_logit_lens(states, weight, eps):
    return torch.stack([torch.nn.functional.layer_norm(z, z.shape[-1:], eps=eps) @ weight.T for z in states])


@wrong("contributions", "The embedding is subtracted from every state")
def contributions_since_the_embedding(states, weight, eps):
    terms = [states[0], *(z - states[0] for z in states[1:])]
    return read_terms(terms, last_std(states, eps), weight)


@wrong("contributions", "The embedding is missing")
def contributions_blocks_only(states, weight, eps):
    terms = [states[k + 1] - states[k] for k in range(len(states) - 1)]
    return read_terms(terms, last_std(states, eps), weight)


@wrong("contributions", "The embedding is the last of the terms")
def contributions_embedding_last(states, weight, eps):
    first, *blocks = written(states)
    return read_terms([*blocks, first], last_std(states, eps), weight)


@wrong("contributions", "the last one first")
def contributions_from_the_end(states, weight, eps):
    terms = [states[0]] + [states[k] - states[k - 1] for k in range(len(states) - 1, 0, -1)]
    return read_terms(terms, last_std(states, eps), weight)


@wrong("contributions", "signs of the blocks are the other way round")
def contributions_signs(states, weight, eps):
    terms = [states[0], *(a - b for a, b in zip(states, states[1:]))]
    return read_terms(terms, last_std(states, eps), weight)


@wrong("contributions", "The terms are along the last axis")
def contributions_on_the_last_axis(states, weight, eps):
    terms = read_terms(written(states), last_std(states, eps), weight)
    return torch.stack(list(terms), dim=-1)


@wrong("contributions", "asked are its terms")
def contributions_summed(states, weight, eps):
    z = states[-1]
    return torch.nn.functional.layer_norm(z, (z.shape[-1],), eps=eps) @ weight.T


@wrong("contributions", "Each state goes through the norm before the difference")
def contributions_lens_differences(states, weight, eps):
    lens = contributions_logit_lens(states, weight, eps)
    return torch.cat([lens[:1], lens.diff(dim=0)])


@wrong("contributions", "normalized by its own variance; the norm")
def contributions_own_norm(states, weight, eps):
    return torch.stack(
        [torch.nn.functional.layer_norm(w, w.shape[-1:], eps=eps) @ weight.T for w in written(states)]
    )


@wrong("contributions", "deviation of the state after it")
def contributions_std_on_the_way(states, weight, eps):
    pairs = zip(written(states), states)
    return torch.stack([(w - w.mean(-1, keepdim=True)) / last_std([z], eps) @ weight.T for w, z in pairs])


@wrong("contributions", "deviation of the state before it")
def contributions_std_of_what_it_read(states, weight, eps):
    before = [states[0], *states[:-1]]
    pairs = zip(written(states), before)
    return torch.stack([(w - w.mean(-1, keepdim=True)) / last_std([z], eps) @ weight.T for w, z in pairs])


@wrong("contributions", "if a term is left out")
def contributions_ablation(states, weight, eps):
    def output(z):
        return torch.nn.functional.layer_norm(z, z.shape[-1:], eps=eps) @ weight.T

    return torch.stack([output(states[-1]) - output(states[-1] - w) for w in written(states)])


@wrong("contributions", "one deviation for all tokens; a layer norm")
def contributions_one_std(states, weight, eps):
    return read_terms(written(states), (states[-1].var(unbiased=False) + eps).sqrt(), weight)


@wrong("contributions", "one deviation for all tokens, with the count less 1")
def contributions_one_unbiased_std(states, weight, eps):
    return read_terms(written(states), torch.sqrt(states[-1].var() + eps), weight)


@wrong("contributions", "deviation is that of the embedding")
def contributions_first_std(states, weight, eps):
    return read_terms(written(states), last_std(states[:1], eps), weight)


@wrong("contributions", "The norm is missing")
def contributions_no_norm(states, weight, eps):
    return torch.stack(written(states)) @ weight.T


@wrong("contributions", "not divided by the deviation")
def contributions_centered_only(states, weight, eps):
    return read_terms(written(states), 1, weight)


@wrong("contributions", "divided, but not centered")
def contributions_not_centered(states, weight, eps):
    return torch.stack([w / last_std(states, eps) @ weight.T for w in written(states)])


@wrong("contributions", "is subtracted from every term")
def contributions_one_mean(states, weight, eps):
    mean, std = states[-1].mean(-1, keepdim=True), last_std(states, eps)
    return torch.stack([(w - mean) / std @ weight.T for w in written(states)])


@wrong("contributions", "is shared evenly among the terms")
def contributions_mean_shared(states, weight, eps):
    terms = torch.stack(written(states)) - states[-1].mean(-1, keepdim=True) / len(states)
    return terms / last_std(states, eps) @ weight.T


@wrong("contributions", "The mean over all terms is subtracted")
def contributions_mean_over_terms(states, weight, eps):
    terms = torch.stack(written(states))
    return (terms - terms.mean(0)) / last_std(states, eps) @ weight.T


@wrong("contributions", "One mean of all numbers is subtracted")
def contributions_mean_of_all(states, weight, eps):
    terms = torch.stack(written(states))
    return (terms - terms.mean()) / last_std(states, eps) @ weight.T


@wrong("contributions", "from the embedding alone")
def contributions_mean_of_the_first(states, weight, eps):
    first, *blocks = written(states)
    terms = torch.stack([first - states[-1].mean(-1, keepdim=True), *blocks])
    return terms / last_std(states, eps) @ weight.T


@wrong("contributions", "divides by D - 1")
def contributions_unbiased(states, weight, eps):
    std = (states[-1].var(-1, keepdim=True) + eps).sqrt()
    return read_terms(written(states), std, weight)


@wrong("contributions", "and `eps` is added to it, not to the variance")
def contributions_std_plus_eps(states, weight, eps):
    return read_terms(written(states), states[-1].std(-1, keepdim=True) + eps, weight)


@wrong("contributions", "by its own variance, and with 1e-5 for `eps`")
def contributions_own_usual_norm(states, weight, eps):
    terms = torch.stack(written(states))
    return torch.nn.functional.layer_norm(terms, terms.shape[-1:]) @ weight.T


@wrong("contributions", "each with its own norm, and with 1e-5 for `eps`")
def contributions_usual_logit_lens(states, weight, eps):
    norm = torch.nn.LayerNorm(states[0].shape[-1], elementwise_affine=False)
    return torch.stack([norm(z) @ weight.T for z in states])


@wrong("contributions", "1e-5 is used instead of `eps`")
def contributions_usual_eps(states, weight, eps):
    return read_terms(written(states), last_std(states, 1e-5), weight)


@wrong("contributions", "`eps` is not used")
def contributions_no_eps(states, weight, eps):
    return read_terms(written(states), last_std(states, 0), weight)


@wrong("contributions", "belongs under the root")
def contributions_eps_outside(states, weight, eps):
    return read_terms(written(states), states[-1].std(-1, correction=0, keepdim=True) + eps, weight)


@wrong("contributions", "its root is missing")
def contributions_variance(states, weight, eps):
    return read_terms(written(states), states[-1].var(-1, correction=0, keepdim=True) + eps, weight)


@wrong("contributions", "mean square of the last state")
def contributions_rms(states, weight, eps):
    rms = ((states[-1] ** 2).mean(-1, keepdim=True) + eps) ** 0.5
    return read_terms(written(states), rms, weight)


@wrong("contributions", "run over the tokens")
def contributions_over_tokens(states, weight, eps):
    std = (states[-1].var(1, correction=0, keepdim=True) + eps).sqrt()
    return torch.stack([(w - w.mean(1, keepdim=True)) / std @ weight.T for w in written(states)])


@wrong("contributions", "The columns of the weight are taken as outputs")
def contributions_weight_transposed(states, weight, eps):
    return read_terms(written(states), last_std(states, eps), weight.T)


@wrong("contributions", "changes its input states")
def contributions_in_place(states, weight, eps):
    std = last_std(states, eps)
    for k in range(len(states) - 1, 0, -1):
        states[k] -= states[k - 1]
    return read_terms(states, std, weight)


@wrong("contributions", "stopped with RuntimeError")
def contributions_no_keepdim(states, weight, eps):
    std = (states[-1].var(-1, correction=0) + eps).sqrt()
    return read_terms(written(states), std, weight)


# ---- modulate


@right("modulate")
def modulate_one_plus(x, shift, scale):
    return x * (1 + scale) + shift


@right("modulate")
def modulate_einops(x, shift, scale):
    factor = rearrange(scale, "n 1 d -> n d") + 1
    return einsum(x, factor, "n t d, n d -> n t d") + shift


@right("modulate")
def modulate_loop(x, shift, scale):
    return torch.stack([x[i] + x[i] * scale[i, 0] + shift[i, 0] for i in range(len(x))])


@wrong("modulate", "sets the tokens to zero")
def modulate_no_one(x, shift, scale):
    return x * scale + shift


@wrong("modulate", "Shift and scale are exchanged")
def modulate_exchanged(x, shift, scale):
    return modulate_one_plus(x, scale, shift)


@wrong("modulate", "The shift is scaled too")
def modulate_shift_first(x, shift, scale):
    return (x + shift) * (1 + scale)


@wrong("modulate", "lack the axis of the tokens")
def modulate_squeezed(x, shift, scale):
    return x * (1 + scale.squeeze(1)) + shift.squeeze(1)


@wrong("modulate", "the first image's condition")
def modulate_first(x, shift, scale):
    return x * (1 + scale[0]) + shift[0]


@wrong("modulate", "added to their modulated copy")
def modulate_residual(x, shift, scale):
    return x + modulate_one_plus(x, shift, scale)


@wrong("modulate", "The shift is missing")
def modulate_scale_only(x, shift, scale):
    return x + x * scale


@wrong("modulate", "The scale is missing")
def modulate_shift_only(x, shift, scale):
    return x + shift


@wrong("modulate", "The shift is subtracted")
def modulate_minus(x, shift, scale):
    return x * (1 + scale) - shift


@wrong("modulate", "divided by 1 + scale")
def modulate_divides(x, shift, scale):
    return x / (1 + scale) + shift


@wrong("modulate", "The 1 is added to the tokens")
def modulate_one_plus_x(x, shift, scale):
    return (1 + x) * scale + shift


@wrong("modulate", "added to the shift too")
def modulate_one_twice(x, shift, scale):
    return x * (1 + scale) + (1 + shift)


@wrong("modulate", "changes its input x")
def modulate_in_place(x, shift, scale):
    x *= 1 + scale
    x += shift
    return x


@wrong("modulate", "subtracted from 1")
def modulate_one_minus(x, shift, scale):
    return x * (1 - scale) + shift


@wrong("modulate", "the exponential of the scale")
def modulate_exp(x, shift, scale):
    return x * torch.exp(scale) + shift


@wrong("modulate", "The shift is multiplied by the scale")
def modulate_shift_times_scale(x, shift, scale):
    return x * (1 + scale) + shift * scale


@wrong("modulate", "normalized again")
def modulate_norm_again(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


@wrong("modulate", "averaged over the images")
def modulate_mean_image(x, shift, scale):
    return x * (1 + scale.mean(dim=0)) + shift.mean(dim=0)


@wrong("modulate", "the parentheses around 1 + scale")
def modulate_no_parentheses(x, shift, scale):
    return x * 1 + scale + shift


@wrong("modulate", "with 1e-6 as in DiT")
def modulate_normalizes_again(x, shift, scale):
    return norm(x) * (1 + scale) + shift


# ---- adaln_fields


@right("adaln_fields")
def adaln_fields_split(c, weight, bias):
    return F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=-1)


@right("adaln_fields")
def adaln_fields_einops(c, weight, bias):
    numbers = (c * c.sigmoid()) @ weight.T + bias
    return list(rearrange(numbers, "n (field d) -> field n 1 d", d=c.shape[-1]))


@right("adaln_fields")
def adaln_fields_one_tensor(c, weight, bias):
    numbers = F.linear(F.silu(c), weight, bias)
    return rearrange(numbers, "n (field d) -> field n 1 d", d=c.shape[-1])


@right("adaln_fields")
def adaln_fields_one_by_one(c, weight, bias):
    parts = zip(weight.split(c.shape[1]), bias.split(c.shape[1]))
    return tuple((F.silu(c) @ w.T + b).unsqueeze(1) for w, b in parts)


@wrong("adaln_fields", "as it is; a SiLU")
def adaln_fields_no_silu(c, weight, bias):
    return F.linear(c, weight, bias)[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "comes after the linear layer")
def adaln_fields_silu_behind(c, weight, bias):
    return F.silu(F.linear(c, weight, bias))[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "one after it")
def adaln_fields_silu_twice(c, weight, bias):
    return [F.silu(field) for field in adaln_fields_split(c, weight, bias)]


@wrong("adaln_fields", "ReLU")
def adaln_fields_relu(c, weight, bias):
    return F.linear(F.relu(c), weight, bias)[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "GELU")
def adaln_fields_gelu(c, weight, bias):
    return F.linear(F.gelu(c), weight, bias)[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "replaced by its sigmoid")
def adaln_fields_sigmoid(c, weight, bias):
    return F.linear(c.sigmoid(), weight, bias)[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "The bias is missing")
def adaln_fields_no_bias(c, weight, bias):
    return (F.silu(c) @ weight.mT)[:, None].split(c.shape[1], dim=-1)


@wrong(
    "adaln_fields",
    "must return F tensors (N, 1, D), or one (F, N, 1, D), but returns a tuple of 6",
)
def adaln_fields_six(c, weight, bias):
    return F.linear(F.silu(c), weight, bias)[:, None].chunk(6, dim=-1)


@wrong("adaln_fields", "but returns a tuple of 4")
def adaln_fields_four(c, weight, bias):
    shift1, scale1, shift2, scale2 = F.linear(F.silu(c), weight, bias).unsqueeze(1).chunk(4, dim=-1)
    return shift1, scale1, shift2, scale2


@wrong("adaln_fields", "Scale comes before shift")
def adaln_fields_scale_first(c, weight, bias):
    parts = list(adaln_fields_split(c, weight, bias))
    each = {2: 2, 4: 2, 6: 3}[len(parts)]
    for i in range(0, len(parts), each):
        parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return parts


@wrong("adaln_fields", "The branches alternate")
def adaln_fields_alternating(c, weight, bias):
    parts = adaln_fields_split(c, weight, bias)
    return [*parts[::2], *parts[1::2]]


@wrong("adaln_fields", "MLP come before those of the attention")
def adaln_fields_mlp_first(c, weight, bias):
    mlp, attention = adaln_fields_split(c, weight, bias), ()
    half = len(mlp) // 2
    attention, mlp = mlp[:half], mlp[half:]
    return mlp + attention


@wrong("adaln_fields", "taken in steps")
def adaln_fields_strided(c, weight, bias):
    numbers, count = F.linear(F.silu(c), weight, bias), len(weight) // c.shape[1]
    return tuple(numbers[:, None, i::count] for i in range(count))


@wrong("adaln_fields", "no axis for the tokens")
def adaln_fields_flat(c, weight, bias):
    return F.linear(F.silu(c), weight, bias).split(c.shape[1], dim=1)


@wrong("adaln_fields", "what the linear layer returns, (N, FD)")
def adaln_fields_uncut(c, weight, bias):
    return F.linear(F.silu(c), weight, bias)


@wrong("adaln_fields", "with an axis for the tokens")
def adaln_fields_uncut_with_axis(c, weight, bias):
    return F.linear(F.silu(c), weight, bias).unsqueeze(1)


@wrong("adaln_fields", "one tensor (N, F, D)")
def adaln_fields_images_first(c, weight, bias):
    return F.linear(F.silu(c), weight, bias).reshape(len(c), -1, c.shape[1])


@wrong("adaln_fields", "one tensor (N, F, 1, D)")
def adaln_fields_images_first_with_axis(c, weight, bias):
    return F.linear(F.silu(c), weight, bias).reshape(len(c), -1, 1, c.shape[1])


@wrong("adaln_fields", "one tensor (N, 1, F, D)")
def adaln_fields_as_tokens(c, weight, bias):
    return F.linear(F.silu(c), weight, bias).view(len(c), 1, -1, c.shape[1])


@wrong("adaln_fields", "no axis for the tokens")
def adaln_fields_one_flat_tensor(c, weight, bias):
    return rearrange(F.linear(F.silu(c), weight, bias), "n (f d) -> f n d", d=c.shape[1])


@wrong("adaln_fields", "first field has shape (3, 1, 1, 3), but must have (3, 1, 3)")
def adaln_fields_axis_too_many(c, weight, bias):
    return torch.stack(adaln_fields_split(c, weight, bias)).unsqueeze(2)


@wrong("adaln_fields", "through a tanh")
def adaln_fields_tanh(c, weight, bias):
    return F.linear(c.tanh(), weight, bias)[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "added to its SiLU")
def adaln_fields_silu_residual(c, weight, bias):
    return F.linear(c + F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=-1)


@wrong("adaln_fields", "reverse order")
def adaln_fields_reversed(c, weight, bias):
    return adaln_fields_split(c, weight, bias)[::-1]


@wrong("adaln_fields", "The first two fields")
def adaln_fields_first_two(c, weight, bias):
    shift, scale, *others = F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=-1)
    return scale, shift, *others


@wrong("adaln_fields", "All fields are the first one")
def adaln_fields_same_slice(c, weight, bias):
    numbers, width = F.linear(F.silu(c), weight, bias), c.shape[1]
    return [numbers[:, None, :width] for _ in range(len(weight) // width)]


# ---- absorb


@right("absorb")
def absorb_broadcast(weight, bias, shift, scale):
    return weight * (1 + scale), bias + (shift @ weight.T).squeeze(1)


@right("absorb")
def absorb_diagonal(weight, bias, shift, scale):
    weights = torch.stack([weight @ torch.diag(1 + one[0]) for one in scale])
    return weights, F.linear(shift, weight, bias)[:, 0]


@right("absorb")
def absorb_einsum(weight, bias, shift, scale):
    shift, scale = shift.squeeze(1), scale.squeeze(1)
    weights = weight + einsum(weight, scale, "k d, n d -> n k d")
    return [weights, einsum(weight, shift, "k d, n d -> n k") + bias]


@wrong("absorb", "multiplied by the scale")
def absorb_no_one(weight, bias, shift, scale):
    return weight * scale, bias + (shift @ weight.T)[:, 0]


@wrong("absorb", "shift is multiplied by 1 + scale")
def absorb_shift_through_new_weights(weight, bias, shift, scale):
    weights = weight * (1 + scale)
    return weights, bias + (weights @ shift.mT)[..., 0]


@wrong("absorb", "acts on the rows")
def absorb_rows(weight, bias, shift, scale):
    return weight * (1 + scale.transpose(1, 2)), bias + (shift @ weight.T)[:, 0]


@wrong("absorb", "own bias is missing")
def absorb_no_bias(weight, bias, shift, scale):
    return weight * (1 + scale), (shift @ weight.T)[:, 0]


@wrong("absorb", "ignore the shift")
def absorb_no_shift(weight, bias, shift, scale):
    return weight * (1 + scale), bias.repeat(len(shift), 1)


@wrong("absorb", "added to the bias as it is")
def absorb_shift_unmapped(weight, bias, shift, scale):
    return weight * (1 + scale), bias + shift[:, 0]


@wrong("absorb", "needs the transposed weight")
def absorb_shift_transposed(weight, bias, shift, scale):
    return weight * (1 + scale), bias + shift[:, 0] @ weight


@wrong("absorb", "The bias is scaled too")
def absorb_bias_scaled(weight, bias, shift, scale):
    return weight * (1 + scale), bias * (1 + scale[:, 0]) + shift[:, 0] @ weight.T


@wrong("absorb", "Shift and scale are exchanged")
def absorb_exchanged(weight, bias, shift, scale):
    return absorb_broadcast(weight, bias, scale, shift)


@wrong("absorb", "the first image's layer")
def absorb_first(weight, bias, shift, scale):
    w, b = absorb_broadcast(weight, bias, shift, scale)
    return w[:1].expand_as(w), b[:1].expand_as(b)


@wrong("absorb", "The weights are transposed")
def absorb_transposed(weight, bias, shift, scale):
    return weight.T * (1 + scale.transpose(1, 2)), bias + shift[:, 0] @ weight.T


@wrong("absorb", "an axis too many")
def absorb_unsqueezed(weight, bias, shift, scale):
    return weight * (1 + scale), F.linear(shift, weight, bias)


@wrong("absorb", "2 tensors: weight, bias")
def absorb_applied(weight, bias, shift, scale):
    return F.linear(1 + scale + shift, weight, bias)


@wrong("absorb", "divided by 1 + scale")
def absorb_divides(weight, bias, shift, scale):
    return weight / (1 + scale), bias + (shift @ weight.T)[:, 0]


@wrong("absorb", "The scale is added to the weights")
def absorb_adds_scale(weight, bias, shift, scale):
    return weight + scale, bias + (shift @ weight.T)[:, 0]


@wrong("absorb", "The weights are not modulated")
def absorb_no_scale(weight, bias, shift, scale):
    return weight.repeat(len(scale), 1, 1), bias + (shift @ weight.T)[:, 0]


@wrong("absorb", "The shift is added to the weights")
def absorb_shift_in_weights(weight, bias, shift, scale):
    return weight * (1 + scale) + shift, bias.repeat(len(shift), 1)


@wrong("absorb", "subtracted from the biases")
def absorb_minus(weight, bias, shift, scale):
    return weight * (1 + scale), bias - (shift @ weight.T)[:, 0]


@wrong("absorb", "The shift is multiplied by the scale")
def absorb_shift_times_scale(weight, bias, shift, scale):
    return weight * (1 + scale), bias + ((shift * scale) @ weight.T)[:, 0]


@wrong("absorb", "added up over the channels")
def absorb_sum_of_shift(weight, bias, shift, scale):
    return weight * (1 + scale), bias + shift.sum(dim=-1)


@wrong("absorb", "averaged over the channels")
def absorb_mean_of_products(weight, bias, shift, scale):
    return weight * (1 + scale), bias + torch.mean(weight * shift, dim=2)


@wrong("absorb", "undoes a modulation")
def absorb_inverse(weight, bias, shift, scale):
    return weight / (1 + scale), bias - torch.einsum("kd,nd->nk", weight, shift[:, 0])


@wrong("absorb", "subtracted from 1")
def absorb_one_minus_scale(weight, bias, shift, scale):
    return weight * (1 - scale), bias + torch.einsum("kd,nd->nk", weight, shift[:, 0])


# ---- adaln_zero


def norm(x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


@right("adaln_zero")
def adaln_zero_layer_norm(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x) * (1 + scale) + shift)


@right("adaln_zero")
def adaln_zero_by_hand(x, branch, shift, scale, gate):
    centered = x - x.mean(-1, keepdim=True)
    h = centered / torch.sqrt((centered**2).mean(-1, keepdim=True) + 1e-6)
    return torch.addcmul(x, gate.expand_as(x), branch(h + h * scale + shift))


@right("adaln_zero")
def adaln_zero_module(x, branch, shift, scale, gate):
    layer = nn.LayerNorm(x.shape[-1], eps=1e-6, elementwise_affine=False)
    out = branch(layer(x) * (scale + 1) + shift)
    return torch.lerp(x, x + out, gate)


@wrong("adaln_zero", "The gate is on the tokens, not on the branch")
def adaln_zero_gate_on_x(x, branch, shift, scale, gate):
    return gate * x + branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "on tokens and branch together")
def adaln_zero_gate_on_all(x, branch, shift, scale, gate):
    return gate * (x + branch(norm(x) * (1 + scale) + shift))


@wrong("adaln_zero", "only the branch is returned")
def adaln_zero_no_residual(x, branch, shift, scale, gate):
    return gate * branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "There is no gate")
def adaln_zero_no_gate(x, branch, shift, scale, gate):
    return x + branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "sigmoid")
def adaln_zero_sigmoid(x, branch, shift, scale, gate):
    return x + torch.sigmoid(gate) * branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "used like a scale")
def adaln_zero_one_plus_gate(x, branch, shift, scale, gate):
    return x + (1 + gate) * branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "sets the tokens to zero")
def adaln_zero_no_one(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x) * scale + shift)


@wrong("adaln_zero", "they must be normalized first")
def adaln_zero_no_norm(x, branch, shift, scale, gate):
    return x + gate * branch(x * (1 + scale) + shift)


@wrong("adaln_zero", "1e-5")
def adaln_zero_default_eps(x, branch, shift, scale, gate):
    return x + gate * branch(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift)


@wrong("adaln_zero", "divides by D - 1")
def adaln_zero_unbiased(x, branch, shift, scale, gate):
    h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "runs over the tokens")
def adaln_zero_instance_norm(x, branch, shift, scale, gate):
    h = F.instance_norm(x.transpose(1, 2), eps=1e-6).transpose(1, 2)
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "normalized tokens are added")
def adaln_zero_overwrites_x(x, branch, shift, scale, gate):
    x = norm(x)
    return x + gate * branch(x * (1 + scale) + shift)


@wrong("adaln_zero", "outside the gate")
def adaln_zero_mixed(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x)) * (1 + scale) + shift


@wrong("adaln_zero", "Shift and scale are exchanged")
def adaln_zero_exchanged(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x) * (1 + shift) + scale)


@wrong("adaln_zero", "The shift is scaled too")
def adaln_zero_shift_first(x, branch, shift, scale, gate):
    return x + gate * branch((norm(x) + shift) * (1 + scale))


@wrong("adaln_zero", "The scale is missing")
def adaln_zero_no_scale(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x) + shift)


@wrong("adaln_zero", "The shift is missing")
def adaln_zero_no_shift(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x) * (1 + scale))


@wrong("adaln_zero", "without shift and scale")
def adaln_zero_unmodulated(x, branch, shift, scale, gate):
    return x + gate * branch(norm(x))


@wrong("adaln_zero", "come after the branch; they belong between")
def adaln_zero_modulates_late(x, branch, shift, scale, gate):
    h = branch(norm(x))
    return x + gate * (h * (1 + scale) + shift)


@wrong("adaln_zero", "what goes into the branch")
def adaln_zero_gate_before(x, branch, shift, scale, gate):
    h = norm(x) * (1 + scale) + shift
    return x + branch(gate * h)


@wrong("adaln_zero", "The norm comes last, over the sum")
def adaln_zero_post_norm(x, branch, shift, scale, gate):
    return norm(x + gate * branch(x * (1 + scale) + shift))


@wrong("adaln_zero", "Norm and modulation come last")
def adaln_zero_post_adaln(x, branch, shift, scale, gate):
    x = x + gate * branch(x)
    return norm(x) * (1 + scale) + shift


@wrong("adaln_zero", "a second norm")
def adaln_zero_two_norms(x, branch, shift, scale, gate):
    return norm(adaln_zero_layer_norm(x, branch, shift, scale, gate))


@wrong("adaln_zero", "The norm comes after the branch")
def adaln_zero_norm_after(x, branch, shift, scale, gate):
    return x + gate * norm(branch(x * (1 + scale) + shift))


@wrong("adaln_zero", "Norm and modulation come after the branch")
def adaln_zero_adaln_after(x, branch, shift, scale, gate):
    return x + gate * (norm(branch(x)) * (1 + scale) + shift)


@wrong("adaln_zero", "The modulated tokens are added")
def adaln_zero_residual_of_h(x, branch, shift, scale, gate):
    h = norm(x) * (1 + scale) + shift
    return h + gate * branch(h)


@wrong("adaln_zero", "The gate mixes tokens and branch")
def adaln_zero_mixture(x, branch, shift, scale, gate):
    return torch.lerp(x, branch(norm(x) * (1 + scale) + shift), gate)


@wrong("adaln_zero", "tanh")
def adaln_zero_tanh(x, branch, shift, scale, gate):
    return x + gate.tanh() * branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "The first image's gate")
def adaln_zero_first_gate(x, branch, shift, scale, gate):
    return x + gate[0] * branch(norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "RMSNorm")
def adaln_zero_rms(x, branch, shift, scale, gate):
    h = F.rms_norm(x, x.shape[-1:], eps=1e-6)
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "belongs under the root")
def adaln_zero_eps_outside(x, branch, shift, scale, gate):
    h = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + 1e-6)
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "never called")
def adaln_zero_no_branch(x, branch, shift, scale, gate):
    return x + gate * (norm(x) * (1 + scale) + shift)


@wrong("adaln_zero", "undoes part of it")
def adaln_zero_norm_after_modulation(x, branch, shift, scale, gate):
    h = F.layer_norm(x * (1 + scale) + shift, x.shape[-1:], eps=1e-6)
    return x + gate * branch(h)


@wrong("adaln_zero", "one mean for each image")
def adaln_zero_image_norm(x, branch, shift, scale, gate):
    h = F.layer_norm(x, x.shape[1:], eps=1e-6)
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "over the images of the batch")
def adaln_zero_batch_norm(x, branch, shift, scale, gate):
    h = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt()
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "two mistakes at once")
def adaln_zero_std(x, branch, shift, scale, gate):
    h = (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-6)
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "has no small constant")
def adaln_zero_no_eps(x, branch, shift, scale, gate):
    h = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)
    return x + gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "subtracted from 1")
def adaln_zero_one_minus_scale(x, branch, shift, scale, gate):
    h = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return x + gate * branch(h * (1 - scale) + shift)


@wrong("adaln_zero", "gate is added")
def adaln_zero_gate_added(x, branch, shift, scale, gate):
    h = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return x + (gate + branch(h * (1 + scale) + shift))


# ---- zero_init


@right("zero_init")
def zero_init_nn(linear):
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


@right("zero_init")
def zero_init_no_grad(linear):
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.zero_()


@right("zero_init")
def zero_init_data(linear):
    linear.weight.data = torch.zeros_like(linear.weight)
    linear.bias.data[:] = 0


@right("zero_init")
def zero_init_state(linear):
    linear.load_state_dict({name: 0 * value for name, value in linear.state_dict().items()})


@wrong("zero_init", "Weight and bias are new tensors")
def zero_init_new_parameters(linear):
    linear.weight = nn.Parameter(torch.zeros_like(linear.weight))
    linear.bias = nn.Parameter(torch.zeros_like(linear.bias))


@wrong("zero_init", "Only the bias is zero")
def zero_init_bias(linear):
    nn.init.constant_(linear.bias, 0)


@wrong("zero_init", "Only the weight is zero")
def zero_init_weight(linear):
    nn.init.constant_(linear.weight, 0)


@wrong("zero_init", "The layer is unchanged")
def zero_init_new_layer(linear):
    return zero_init_nn(nn.Linear(linear.in_features, linear.out_features))


@wrong("zero_init", "The layer is unchanged")
def zero_init_rebinds(linear):
    weight, bias = linear.weight, linear.bias
    weight, bias = weight * 0, bias * 0
    return linear


@wrong("zero_init", "frozen")
def zero_init_frozen(linear):
    linear.weight = nn.Parameter(torch.zeros_like(linear.weight), requires_grad=False)
    linear.bias = nn.Parameter(torch.zeros_like(linear.bias), requires_grad=False)


@wrong("zero_init", "instead of them")
def zero_init_then_xavier(linear):
    zero_init_nn(linear)
    nn.init.xavier_uniform_(linear.weight)


@wrong("zero_init", "The weight is a new tensor; write")
def zero_init_new_weight(linear):
    linear.weight = nn.Parameter(torch.zeros(linear.weight.shape, dtype=torch.float64))
    nn.init.zeros_(linear.bias)


@wrong("zero_init", "The bias is a new tensor; write")
def zero_init_new_bias(linear):
    nn.init.zeros_(linear.weight)
    linear.bias = nn.Parameter(linear.bias * 0)


@wrong("zero_init", "The weight is torch.float32, but must be torch.float64")
def zero_init_float32(linear):
    zero_init_no_grad(linear.float())


@wrong("zero_init", "and the bias is not zero")
def zero_init_new_weight_only(linear):
    linear.weight = nn.Parameter(torch.zeros_like(linear.weight))


@wrong("zero_init", "ones")
def zero_init_ones(linear):
    nn.init.ones_(linear.weight)
    nn.init.ones_(linear.bias)


@wrong("zero_init", "the bias is frozen")
def zero_init_frozen_bias(linear):
    zero_init_no_grad(linear)
    linear.bias.requires_grad = False


@wrong("zero_init", "the weight is frozen")
def zero_init_frozen_weight(linear):
    zero_init_no_grad(linear)
    linear.weight.requires_grad_(False)


@wrong("zero_init", "small, but not zero")
def zero_init_small(linear):
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


@wrong("zero_init", "PyTorch's own random numbers")
def zero_init_reset(linear):
    linear.reset_parameters()
    linear.bias.data.zero_()


@wrong("zero_init", "stopped with")
def zero_init_of_the_layer(linear):
    nn.init.zeros_(linear)


@wrong("zero_init", "stopped with")
def zero_init_in_place(linear):
    linear.weight *= 0
    linear.bias *= 0


@wrong("zero_init", "Weight and bias are small")
def zero_init_tiny(linear):
    nn.init.normal_(linear.weight, std=1e-6)
    nn.init.normal_(linear.bias, std=1e-6)


@wrong("zero_init", "the bias small")
def zero_init_small_bias(linear):
    nn.init.zeros_(linear.weight)
    nn.init.constant_(linear.bias, 0.01)


@wrong("zero_init", "The bias is removed")
def zero_init_no_bias(linear):
    nn.init.zeros_(linear.weight)
    linear.bias = None


@wrong("zero_init", "the bias ones")
def zero_init_ones_bias(linear):
    nn.init.constant_(linear.weight, 0.0)
    nn.init.constant_(linear.bias, 1.0)


# ---- stop_attention


@right("stop_attention")
def stop_attention_projection(block):
    nn.init.zeros_(block.attn.proj.weight)
    nn.init.zeros_(block.attn.proj.bias)


@right("stop_attention")
def stop_attention_all_of_it(block):
    with torch.no_grad():
        for parameter in block.attn.parameters():
            parameter.zero_()


@right("stop_attention")
def stop_attention_new_layer(block):
    block.attn.proj.load_state_dict({k: 0 * v for k, v in block.attn.proj.state_dict().items()})
    return block


@wrong("stop_attention", "still learns as it always does")
def stop_attention_modulation(block):
    nn.init.zeros_(block.adaLN_modulation[-1].weight)  # it is zero already


@wrong("stop_attention", "biases that reach the gate")
def stop_attention_queries(block):
    nn.init.zeros_(block.attn.qkv.weight)


@wrong("stop_attention", "still learns as it always does")
def stop_attention_small(block):
    block.attn.proj.weight.data.mul_(1e-3)
    block.attn.proj.bias.data.mul_(1e-3)


@wrong("stop_attention", "only the weight of the last layer")
def stop_attention_weight(block):
    nn.init.zeros_(block.attn.proj.weight)


@wrong("stop_attention", "the values are zero, but the last layer's bias")
def stop_attention_qkv(block):
    zero_init_nn(block.attn.qkv)


@wrong("stop_attention", "the values are zero, but the last layer's bias")
def stop_attention_values(block):
    width = block.attn.proj.in_features
    block.attn.qkv.weight.data[2 * width :] = 0
    block.attn.qkv.bias.data[2 * width :] = 0


@wrong("stop_attention", "replaced or removed")
def stop_attention_replaced(block):
    width = block.attn.proj.in_features
    block.attn.proj = zero_init_nn(nn.Linear(width, width))


@wrong("stop_attention", "replaced or removed")
def stop_attention_replaced_without_bias(block):
    width = block.attn.proj.in_features
    block.attn.proj = nn.Linear(width, width, bias=False)
    nn.init.zeros_(block.attn.proj.weight)


@wrong("stop_attention", "The MLP is stopped")
def stop_attention_mlp(block):
    zero_init_nn(block.mlp.fc2)


@wrong("stop_attention", "Both branches are stopped")
def stop_attention_both(block):
    zero_init_nn(block.attn.proj)
    zero_init_nn(block.mlp.fc2)


@wrong("stop_attention", "Both branches are stopped")
def stop_attention_everything(block):
    for parameter in block.parameters():
        nn.init.zeros_(parameter)


@wrong("stop_attention", "The attention is frozen")
def stop_attention_frozen(block):
    for parameter in block.attn.parameters():
        parameter.requires_grad = False


@wrong("stop_attention", "The whole block is frozen")
def stop_attention_frozen_block(block):
    block.requires_grad_(False)


@wrong("stop_attention", "frozen as well as zero")
def stop_attention_frozen_zero(block):
    stop_attention_projection(block)
    block.attn.proj.requires_grad_(False)


@wrong("stop_attention", "The modulation is frozen")
def stop_attention_frozen_modulation(block):
    block.adaLN_modulation[1].requires_grad_(False)


@wrong("stop_attention", "The gate is open at the start")
def stop_attention_open(block):
    D = block.adaLN_modulation[1].in_features
    block.adaLN_modulation[1].bias.data[2 * D : 3 * D] = 1.0


@wrong("stop_attention", "The gate is open and the last layer zero")
def stop_attention_open_and_zero(block):
    stop_attention_projection(block)
    stop_attention_open(block)


@wrong("stop_attention", "not the identity")
def stop_attention_noisy_modulation(block):
    for parameter in block.adaLN_modulation.parameters():
        nn.init.constant_(parameter, 0.1)


@wrong("stop_attention", "stopped with AttributeError")
def stop_attention_wrong_name(block):
    nn.init.zeros_(block.attention.proj.weight)


@wrong("stop_attention", "the weights of all its layers")
def stop_attention_weights_only(block):
    for layer in (block.attn.qkv, block.attn.proj):
        nn.init.zeros_(layer.weight)
