"""Slips in the exercises of all lessons: one sign, index, axis, factor or level is wrong."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from dit_nb.patchify import patchify, unpatchify
from dit_nb.positions import sincos_1d
from dit_nb.teach.graders.framework.core import reference_solution

from . import wrong
from .blocks import attention_fused, norm, places_of
from .diffusion import col

posterior = reference_solution("posterior_weights")

# ---- split_condition


@wrong("split_condition", "Only the lengths are compared")
def split_condition_lengths_slip(c, t_table, y_table):
    sums = (t_table[:, None] + y_table).flatten(0, 1)
    best = (c.norm(dim=1)[:, None] - sums.norm(dim=1)).abs().argmin(1)
    return best // len(y_table), best % len(y_table)


@wrong("split_condition", "Only the totals of the channels, or a single channel, are compared")
def split_condition_totals_slip(c, t_table, y_table):
    sums = (t_table[:, None] + y_table).flatten(0, 1)
    best = (c.sum(1)[:, None] - sums.sum(1)).abs().argmin(1)
    return best // len(y_table), best % len(y_table)


# ---- conv_to_linear


@wrong(
    "conv_to_linear",
    "The axis of the outputs is moved to the end, channels before pixels, and then cut into rows",
)
def conv_to_linear_outputs_last_c_slip(weight):
    return weight.permute(1, 2, 3, 0).reshape(len(weight), -1)


@wrong("conv_to_linear", "All four axes are reversed, and then cut into rows")
def conv_to_linear_all_reversed_slip(weight):
    return weight.permute(3, 2, 1, 0).reshape(len(weight), -1)


# ---- block_macs


@wrong("block_macs", "The modulation has five vectors; shift")
def block_macs_five_vectors_slip(tokens, width, mlp_ratio):
    return (
        5 * width * width
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The modulation has one vector")
def block_macs_one_vector_slip(tokens, width, mlp_ratio):
    return (
        width * width
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The modulation has five vectors, and they are counted for every token")
def block_macs_five_per_token_slip(tokens, width, mlp_ratio):
    return (
        5 * width * width * tokens
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The modulation has four vectors, and they are counted for every token")
def block_macs_four_per_token_slip(tokens, width, mlp_ratio):
    return (
        4 * width * width * tokens
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The pairs are counted with the full width for each of 16 heads")
def block_macs_heads_times_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 16 * 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The pairs are counted for one head of 16")
def block_macs_one_head_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * (width / 16) * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The linear layers of attention are counted once for an image")
def block_macs_linear_once_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The MLP is counted once for an image")
def block_macs_mlp_once_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The output projection of attention is counted once for an image")
def block_macs_projection_once_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 3 * width * width * tokens
        + width * width
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "One layer of the MLP is counted once for an image")
def block_macs_second_layer_once_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width * tokens
        + mlp_ratio * width * width * tokens
        + mlp_ratio * width * width
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The argument mlp_ratio is not used")
def block_macs_ratio_two_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width * tokens
        + 4 * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The linear layers of attention are counted as five matrices")
def block_macs_five_linear_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 5 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "Only one of the four matrices of attention is counted")
def block_macs_one_linear_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 2 * width * tokens * tokens
        + 0 * tokens
    )


@wrong("block_macs", "The MLP is missing")
def block_macs_no_mlp_slip(tokens, width, mlp_ratio):
    return 6 * width * width + 4 * width * width * tokens + 0 + 2 * width * tokens * tokens + 0 * tokens


@wrong("block_macs", "The pairs of tokens are counted in flops, the rest in multiply-adds")
def block_macs_pair_flops_slip(tokens, width, mlp_ratio):
    return (
        6 * width * width
        + 4 * width * width * tokens
        + 2 * mlp_ratio * width * width * tokens
        + 4 * width * tokens * tokens
        + 0 * tokens
    )


# ---- timestep_embedding


@wrong("timestep_embedding", "The angles are converted as if they were degrees")
def timestep_embedding_degrees_slip(t, dim, max_period):
    freqs = torch.exp(-math.log(max_period) * torch.arange(dim // 2).double() / (dim // 2))
    angles = math.pi / 180 * t[:, None].double() * freqs
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@wrong("timestep_embedding", "The angles are half turns")
def timestep_embedding_half_turns_slip(t, dim, max_period):
    freqs = torch.exp(-math.log(max_period) * torch.arange(dim // 2).double() / (dim // 2))
    angles = math.pi * t[:, None].double() * freqs
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


# ---- to_model_range


@wrong("to_model_range", "1 is subtracted from values of 0 to 1, so they run from -1 to 0")
def to_model_range_minus_one_slip(images):
    x = images.permute(0, 3, 1, 2).double()
    return x / 255 - 1


@wrong("to_model_range", "The values run from -2 to 0")
def to_model_range_minus_two_slip(images):
    x = images.permute(0, 3, 1, 2).double()
    return x / 255 * 2 - 2


@wrong("to_model_range", "The middle is right, but the distance from it is divided by 128")
def to_model_range_over_128_slip(images):
    x = images.permute(0, 3, 1, 2).double()
    return (x - 127.5) / 128


@wrong("to_model_range", "The middle and half of the range are taken as 127")
def to_model_range_over_127_slip(images):
    x = images.permute(0, 3, 1, 2).double()
    return (x - 127) / 127


@wrong("to_model_range", "128 is subtracted, and the difference divided by the whole range")
def to_model_range_minus_128_over_255_slip(images):
    x = images.permute(0, 3, 1, 2).double()
    return (x - 128) / 255


@wrong("to_model_range", "The values go through a tanh")
def to_model_range_tanh_slip(images):
    x = images.permute(0, 3, 1, 2).double()
    return torch.tanh(x / 127.5 - 1)


# ---- sincos_1d


@wrong("sincos_1d", "The positions are converted as if they were degrees")
def sincos_1d_degrees_slip(positions, dim):
    half = dim // 2
    angles = math.pi / 180 * positions.double()[:, None] / 10000 ** (torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "The longest wave belongs to a period of 1000")
def sincos_1d_period_thousand_slip(positions, dim):
    half = dim // 2
    angles = 1 * positions.double()[:, None] / 1000 ** (torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "The longest wave belongs to a period of 100000")
def sincos_1d_period_hundred_thousand_slip(positions, dim):
    half = dim // 2
    angles = 1 * positions.double()[:, None] / 100000 ** (torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "The positions are treated as half turns")
def sincos_1d_half_turns_slip(positions, dim):
    half = dim // 2
    angles = math.pi * positions.double()[:, None] / 10000 ** (torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "The positions are divided by their number, so that they lie between 0 and 1")
def sincos_1d_divided_by_count_slip(positions, dim):
    half = dim // 2
    angles = 1 / len(positions) * positions.double()[:, None] / 10000 ** (torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "The positions are divided by the largest of them, so that they end at 1")
def sincos_1d_divided_by_largest_slip(positions, dim):
    half = dim // 2
    angles = (
        1
        / positions.max().double()
        * positions.double()[:, None]
        / 10000 ** (torch.arange(half).double() / half)
    )
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "The positions are counted from 1")
def sincos_1d_from_one_slip(positions, dim):
    half = dim // 2
    angles = 1 * (positions.double() + 1)[:, None] / 10000 ** (torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


# ---- sincos_2d


@wrong("sincos_2d", "The rows are fractions")
def sincos_2d_division_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows = i / grid[1]
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The positions are counted from the middle of the grid")
def sincos_2d_from_middle_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows, columns = rows - (grid[0] - 1) / 2, columns - (grid[1] - 1) / 2
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "Half of the grid is subtracted from the positions")
def sincos_2d_from_half_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows, columns = rows - grid[0] / 2, columns - grid[1] / 2
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The positions are counted from the patch in the middle")
def sincos_2d_from_middle_patch_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows, columns = rows - grid[0] // 2, columns - grid[1] // 2
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The positions run from 0 to 1")
def sincos_2d_unit_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows, columns = rows / max(grid[0] - 1, 1), columns / max(grid[1] - 1, 1)
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The positions run from -1 to 1")
def sincos_2d_signed_unit_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows = torch.linspace(-1, 1, grid[0]).double()[rows.long()]
    columns = torch.linspace(-1, 1, grid[1]).double()[columns.long()]
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The positions are divided by the size of the grid")
def sincos_2d_over_size_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows, columns = rows / grid[0], columns / grid[1]
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The positions are the centers of the patches, half a patch too far")
def sincos_2d_centers_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows, columns = rows + 0.5, columns + 0.5
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "Both halves encode the row")
def sincos_2d_rows_twice_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    columns = rows
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "Both halves encode the column")
def sincos_2d_columns_twice_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    rows = columns
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


@wrong("sincos_2d", "The column is counted from the right")
def sincos_2d_flipped_columns_slip(grid, dim):
    i = torch.arange(grid[0] * grid[1]).double()
    rows, columns = i // grid[1], i % grid[1]
    columns = grid[1] - 1 - columns
    return torch.cat([sincos_1d(columns, dim // 2), sincos_1d(rows, dim // 2)], dim=-1)


# ---- multi_head


@wrong("multi_head", "The last head is lost")
def multi_head_last_lost_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat(heads[:-1], dim=-1)


@wrong("multi_head", "The first head is lost")
def multi_head_first_lost_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat(heads[1:], dim=-1)


@wrong("multi_head", "Only the last head is returned")
def multi_head_only_last_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return heads[-1]


@wrong("multi_head", "Only the first head is returned")
def multi_head_only_first_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return heads[0]


@wrong("multi_head", "The results of the heads are added up")
def multi_head_added_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return sum(heads)


@wrong("multi_head", "The heads are stacked on a new first axis")
def multi_head_stacked_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.stack(heads)


@wrong("multi_head", "The heads still have an axis of their own")
def multi_head_stacked_second_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.stack(heads, dim=1)


@wrong("multi_head", "The heads stand behind each other on the axis of the tokens")
def multi_head_behind_tokens_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat(heads, dim=1)


@wrong("multi_head", "The heads stand behind each other on the axis of the images")
def multi_head_behind_images_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat(heads)


@wrong("multi_head", "The first head stands in every place")
def multi_head_first_repeated_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat([heads[0]] * num_heads, dim=-1)


@wrong("multi_head", "The heads are joined in reverse order")
def multi_head_reversed_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat(heads[::-1], dim=-1)


@wrong("multi_head", "The mean of the heads stands in every place")
def multi_head_mean_repeated_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return (sum(heads) / num_heads).repeat(1, 1, num_heads)


@wrong("multi_head", "The last head is zero")
def multi_head_last_zero_slip(q, k, v, num_heads):
    d = q.shape[-1] // num_heads
    heads = [
        attention_fused(*(x[:, None, :, i * d : (i + 1) * d] for x in (q, k, v)))[:, 0]
        for i in range(num_heads)
    ]
    return torch.cat([*heads[:-1], torch.zeros_like(heads[-1])], dim=-1)


# ---- plain_block


@wrong("plain_block", "What the branches write is halved")
def plain_block_halves_slip(x, norm1, attn, norm2, mlp):
    x = x + 0.5 * attn(norm1(x))
    return x + 0.5 * mlp(norm2(x))


@wrong("plain_block", "Stream and branch are averaged")
def plain_block_averages_slip(x, norm1, attn, norm2, mlp):
    x = (x + attn(norm1(x))) / 2
    return (x + mlp(norm2(x))) / 2


@wrong("plain_block", "What the MLP writes is halved")
def plain_block_half_mlp_slip(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    return x + 0.5 * mlp(norm2(x))


@wrong("plain_block", "The MLP reads the attention's normalized input, normalized once more")
def plain_block_old_norm_slip(x, norm1, attn, norm2, mlp):
    h = norm1(x)
    x = x + attn(h)
    return x + mlp(norm2(h))


@wrong("plain_block", "The MLP reads the block's input as it is")
def plain_block_raw_input_slip(x, norm1, attn, norm2, mlp):
    return x + attn(norm1(x)) + mlp(x)


@wrong("plain_block", "The stream is counted twice: the first sum adds it once too often")
def plain_block_stream_twice_slip(x, norm1, attn, norm2, mlp):
    h = x + attn(norm1(x))
    x = x + h
    return x + mlp(norm2(x))


@wrong("plain_block", "The stream is counted twice: the second sum adds it once too often")
def plain_block_sum_twice_slip(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    return x + (x + mlp(norm2(x)))


@wrong("plain_block", "The two branches are parallel, and the input is not added")
def plain_block_parallel_only_slip(x, norm1, attn, norm2, mlp):
    return attn(norm1(x)) + mlp(norm2(x))


@wrong("plain_block", "There is one residual connection around both branches, and the second norm is missing")
def plain_block_one_residual_slip(x, norm1, attn, norm2, mlp):
    return x + mlp(attn(norm1(x)))


@wrong("plain_block", "The attention runs twice, and the MLP never")
def plain_block_attention_twice_slip(x, norm1, attn, norm2, mlp):
    x = x + attn(norm1(x))
    return x + attn(norm2(x))


# ---- layer_norm


@wrong("layer_norm", "The mean is that of each token, but there is one variance for each image")
def layer_norm_variance_of_image_slip(x, eps):
    variance = x.var((1, 2), keepdim=True, unbiased=False)
    return (x - x.mean(-1, keepdim=True)) / (variance + eps).sqrt()


@wrong("layer_norm", "The tokens are centered one by one, but then share one variance for each image")
def layer_norm_variance_of_centered_image_slip(x, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.var((1, 2), keepdim=True, unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The variance is that of each token, but there is one mean for each image")
def layer_norm_mean_of_image_slip(x, eps):
    return (x - x.mean((1, 2), keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The mean is that of each token, but there is one variance for all images and tokens")
def layer_norm_variance_of_everything_slip(x, eps):
    variance = x.var(unbiased=False)
    return (x - x.mean(-1, keepdim=True)) / (variance + eps).sqrt()


@wrong(
    "layer_norm", "The tokens are centered one by one, but then share one variance for all images and tokens"
)
def layer_norm_variance_of_centered_everything_slip(x, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.var(unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The variance is that of each token, but there is one mean for all images and tokens")
def layer_norm_mean_of_everything_slip(x, eps):
    return (x - x.mean()) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The mean runs over the tokens")
def layer_norm_mean_over_tokens_slip(x, eps):
    return (x - x.mean(1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The variance runs over the tokens")
def layer_norm_variance_over_tokens_slip(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The mean is added")
def layer_norm_plus_mean_slip(x, eps):
    return (x + x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()


@wrong("layer_norm", "The tokens are divided by their length")
def layer_norm_unit_length_slip(x, eps):
    return x / (x.norm(dim=-1, keepdim=True) + eps)


@wrong("layer_norm", "The smallest number becomes 0 and the largest 1")
def layer_norm_min_max_slip(x, eps):
    low, high = x.amin(-1, True), x.amax(-1, True)
    return (x - low) / (high - low + eps)


# ---- in_context


@wrong("in_context", "Three tokens are removed at the end, and the last image token is one of them")
def in_context_end_three_slip(x, c, blocks):
    z = torch.cat([x, c], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, :-3]


@wrong("in_context", "One token is removed at the end")
def in_context_end_one_slip(x, c, blocks):
    z = torch.cat([x, c], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, :-1]


@wrong("in_context", "Three tokens are removed at the front, and the first image token is one of them")
def in_context_front_three_slip(x, c, blocks):
    z = torch.cat([c, x], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, 3:]


@wrong("in_context", "One token is removed at the front")
def in_context_front_one_slip(x, c, blocks):
    z = torch.cat([c, x], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, 1:]


@wrong(
    "in_context",
    "One token is removed at each end: an image token is lost, and the first of the appended condition tokens stays",
)
def in_context_end_one_each_slip(x, c, blocks):
    z = torch.cat([x, c], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, 1:-1]


@wrong(
    "in_context",
    "One token is removed at each end: an image token is lost, and the second of the condition tokens at the front stays",
)
def in_context_front_one_each_slip(x, c, blocks):
    z = torch.cat([c, x], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, 1:-1]


@wrong("in_context", "One token is removed at the front, an image token")
def in_context_wrong_end_one_slip(x, c, blocks):
    z = torch.cat([x, c], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, 1:]


@wrong("in_context", "One token is removed at the end, an image token")
def in_context_wrong_front_one_slip(x, c, blocks):
    z = torch.cat([c, x], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, :-1]


@wrong("in_context", "The two condition tokens are returned")
def in_context_condition_only_slip(x, c, blocks):
    z = torch.cat([x, c], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, -2:]


@wrong("in_context", "The condition tokens stand around the image tokens, but both are removed at the front")
def in_context_around_front_slip(x, c, blocks):
    z = torch.cat([c[:, :1], x, c[:, 1:]], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, 2:]


@wrong("in_context", "The condition tokens stand around the image tokens, but both are removed at the end")
def in_context_around_end_slip(x, c, blocks):
    z = torch.cat([c[:, :1], x, c[:, 1:]], dim=1)
    for block in blocks:
        z = block(z)
    return z[:, :-2]


# ---- label_mask


@wrong("label_mask", "What y attends to is closed")
def label_mask_y_row_image_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[T + 1, slice(T)] = False
    return mask


@wrong("label_mask", "The image loses its last patch, not y")
def label_mask_last_patch_column_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[slice(T), T - 1] = False
    return mask


@wrong("label_mask", "The last patch may still attend to y")
def label_mask_last_patch_attends_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[slice(max(T - 1, 0)), T + 1] = False
    mask[T, T + 1] = False
    return mask


@wrong("label_mask", "All but y lose y, but y loses the image too")
def label_mask_y_keeps_to_itself_image_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[slice(T + 1), T + 1] = False
    mask[T + 1, slice(T)] = False
    return mask


@wrong("label_mask", "Only y is kept from t")
def label_mask_t_only_row_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[T + 1, T] = False
    return mask


@wrong("label_mask", "Both t and the image lose both condition tokens")
def label_mask_both_columns_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[slice(T + 1), slice(T, T + 2)] = False
    return mask


@wrong("label_mask", "The column of t is closed, even for t itself")
def label_mask_column_of_t_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[:, T] = False
    return mask


@wrong("label_mask", "The row of t is closed")
def label_mask_row_of_t_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[T, :] = False
    return mask


@wrong("label_mask", "This is a causal mask turned around")
def label_mask_upper_slip(T):
    return torch.ones(T + 2, T + 2).triu().bool()


# ---- adaln_zero


@wrong("adaln_zero", "The gate multiplies the normalized tokens before they are modulated")
def adaln_zero_gate_on_norm_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + branch(gate * h * (1 + scale) + shift)


@wrong("adaln_zero", "Gate and scale are exchanged")
def adaln_zero_gate_and_scale_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + scale * branch(h * (1 + gate) + shift)


@wrong("adaln_zero", "Gate and shift are exchanged")
def adaln_zero_gate_and_shift_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + shift * branch(h * (1 + scale) + gate)


@wrong("adaln_zero", "The three fields are taken in the order gate, shift, scale")
def adaln_zero_gate_first_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + shift * branch(h * (1 + gate) + scale)


@wrong("adaln_zero", "The three fields are taken in the order scale, gate, shift")
def adaln_zero_scale_first_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + scale * branch(h * (1 + shift) + gate)


@wrong("adaln_zero", "The gate is subtracted from 1, so that a gate of 0 is fully open")
def adaln_zero_one_minus_gate_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + (1 - gate) * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "The gate multiplies shift and scale")
def adaln_zero_gate_on_fields_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + branch(h * (1 + gate * scale) + gate * shift)


@wrong("adaln_zero", "The gate multiplies the input tokens as well")
def adaln_zero_gate_on_both_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + gate * (x + branch(h * (1 + scale) + shift))


@wrong("adaln_zero", "The gate is used twice, as if it were squared")
def adaln_zero_gate_squared_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + gate**2 * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "The gate is used before and after the branch")
def adaln_zero_gate_around_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + gate * branch(gate * (h * (1 + scale) + shift))


@wrong("adaln_zero", "The gated branch is subtracted")
def adaln_zero_gate_minus_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x - gate * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "The scale is used where the gate belongs")
def adaln_zero_scale_for_gate_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + scale * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "The shift is used where the gate belongs")
def adaln_zero_shift_for_gate_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + shift * branch(h * (1 + scale) + shift)


@wrong("adaln_zero", "The gate is averaged to one number")
def adaln_zero_gate_mean_slip(x, branch, shift, scale, gate):
    h = norm(x)
    return x + gate.mean() * branch(h * (1 + scale) + shift)


# ---- cross_attention


@wrong("cross_attention", "The softmax comes twice")
def cross_attention_softmax_twice_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1).softmax(-1) @ v


@wrong("cross_attention", "Both condition tokens get the same weight")
def cross_attention_even_weights_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    q @ k.mT / q.shape[-1] ** 0.5
    return v.mean(1, keepdim=True).expand_as(x)


@wrong("cross_attention", "The scores have the wrong sign")
def cross_attention_negative_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (-scores).softmax(-1) @ v


@wrong("cross_attention", "All weight goes to the better key")
def cross_attention_hard_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return F.one_hot(scores.argmax(-1), 2).to(v) @ v


@wrong("cross_attention", "The exponentials are not divided by their sum, so the weights do not sum to 1")
def cross_attention_exponentials_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.exp() @ v


@wrong("cross_attention", "The softmax runs over the images of the batch")
def cross_attention_over_images_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(0) @ v


@wrong("cross_attention", "The scores are multiplied by the square root of the width")
def cross_attention_multiplied_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    return (q @ k.mT * q.shape[-1] ** 0.5).softmax(-1) @ v


@wrong("cross_attention", "The scale comes after the softmax, so the weights no longer sum to 1")
def cross_attention_late_scale_slip(x, context, w_q, w_k, w_v):
    q, k, v = x @ w_q, context @ w_k, context @ w_v
    return (q @ k.mT).softmax(-1) / q.shape[-1] ** 0.5 @ v


# ---- padded_attention


@wrong("padded_attention", "The softmax comes twice")
def padded_attention_softmax_twice_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~real, -math.inf).softmax(-1).softmax(-1) @ v


@wrong("padded_attention", "The weighted mean is divided by the number of words once more")
def padded_attention_mean_again_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~real, -math.inf).softmax(-1) / lengths[:, None, None] @ v


@wrong("padded_attention", "The scores have the wrong sign")
def padded_attention_negative_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (-scores).masked_fill(~real, -math.inf).softmax(-1) @ v


@wrong("padded_attention", "The exponentials are not divided by their sum, so the weights do not sum to 1")
def padded_attention_exponentials_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.exp() * real @ v


@wrong("padded_attention", "Each weight is a sigmoid of its own")
def padded_attention_sigmoids_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.sigmoid() * real @ v


@wrong("padded_attention", "All weight goes to the best word")
def padded_attention_hard_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return F.one_hot(scores.masked_fill(~real, -math.inf).argmax(-1), k.shape[1]).to(v) @ v


@wrong("padded_attention", "There is no softmax")
def padded_attention_no_softmax_slip(q, k, v, lengths):
    real = places_of(k, lengths)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores * real @ v


# ---- modulate


@wrong("modulate", "The shift is in the factor")
def modulate_shift_in_factor_slip(x, shift, scale):
    return x * (1 + scale + shift)


@wrong("modulate", "The shift multiplies the scaled tokens")
def modulate_product_slip(x, shift, scale):
    return x * (1 + scale) * shift


@wrong("modulate", "The scale goes through a tanh")
def modulate_tanh_slip(x, shift, scale):
    return x * (1 + scale.tanh()) + shift


@wrong("modulate", "The scale goes through a sigmoid")
def modulate_sigmoid_slip(x, shift, scale):
    return x * scale.sigmoid() + shift


@wrong("modulate", "1 is subtracted from the scale")
def modulate_minus_one_slip(x, shift, scale):
    return x * (scale - 1) + shift


@wrong("modulate", "The factor 1 + scale is used twice")
def modulate_squared_slip(x, shift, scale):
    return x * (1 + scale) ** 2 + shift


@wrong("modulate", "Shift and scale come from the images in reverse order")
def modulate_reversed_images_slip(x, shift, scale):
    return x * (1 + scale.flip(0)) + shift.flip(0)


@wrong("modulate", "Shift and scale are averaged over the channels")
def modulate_channel_mean_slip(x, shift, scale):
    return x * (1 + scale.mean(-1, keepdim=True)) + shift.mean(-1, keepdim=True)


# ---- adaln_fields


@wrong("adaln_fields", "The condition goes through a softplus")
def adaln_fields_softplus_slip(c, weight, bias):
    return F.linear(F.softplus(c), weight, bias)[:, None].split(c.shape[1], dim=2)


@wrong("adaln_fields", "The condition goes through a leaky ReLU")
def adaln_fields_leaky_relu_slip(c, weight, bias):
    return F.linear(F.leaky_relu(c), weight, bias)[:, None].split(c.shape[1], dim=2)


@wrong("adaln_fields", "The condition goes through an ELU")
def adaln_fields_elu_slip(c, weight, bias):
    return F.linear(F.elu(c), weight, bias)[:, None].split(c.shape[1], dim=2)


@wrong("adaln_fields", "All fields are the last one")
def adaln_fields_last_slip(c, weight, bias):
    fields = F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=2)
    return [fields[-1]] * len(fields)


@wrong("adaln_fields", "1 is added to every field")
def adaln_fields_one_added_slip(c, weight, bias):
    fields = F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=2)
    return [1 + field for field in fields]


@wrong("adaln_fields", "The first field comes last")
def adaln_fields_rotated_slip(c, weight, bias):
    fields = F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=2)
    return [*fields[1:], fields[0]]


@wrong("adaln_fields", "The axes of images and tokens are exchanged")
def adaln_fields_images_second_slip(c, weight, bias):
    fields = F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=2)
    return [field.transpose(0, 1) for field in fields]


@wrong("adaln_fields", "The axis for the tokens is at the end")
def adaln_fields_channels_second_slip(c, weight, bias):
    fields = F.linear(F.silu(c), weight, bias)[:, None].split(c.shape[1], dim=2)
    return [field.mT for field in fields]


@wrong("adaln_fields", "The bias is added twice")
def adaln_fields_bias_twice_slip(c, weight, bias):
    return (F.linear(F.silu(c), weight, bias) + bias)[:, None].split(c.shape[1], dim=2)


@wrong("adaln_fields", "The condition is normalized, as tokens are, and the SiLU is missing")
def adaln_fields_normalized_slip(c, weight, bias):
    return F.linear(F.layer_norm(c, c.shape[-1:]), weight, bias)[:, None].split(c.shape[1], dim=2)


# ---- absorb


@wrong("absorb", "The factor is the exponential of the scale")
def absorb_exponential_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * scale.exp(), b + shift[:, 0] @ w.T


@wrong("absorb", "The 1 is added to the weights")
def absorb_one_in_weights_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return (1 + w) * scale, b + shift[:, 0] @ w.T


@wrong("absorb", "The layer's own bias is added twice")
def absorb_bias_twice_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (1 + scale), 2 * b + shift[:, 0] @ w.T


@wrong("absorb", "The 1 is added to the shift too")
def absorb_one_plus_shift_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (1 + scale), b + (1 + shift[:, 0]) @ w.T


@wrong("absorb", "The shift's part multiplies the bias")
def absorb_bias_times_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (1 + scale), b * (shift[:, 0] @ w.T)


@wrong("absorb", "The scale goes through the layer to the biases")
def absorb_scale_in_bias_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (1 + scale), b + scale[:, 0] @ w.T


@wrong("absorb", "Neither scale nor shift is used")
def absorb_nothing_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w.expand(len(shift), -1, -1), b.expand(len(shift), -1)


@wrong("absorb", "The scale is averaged over the channels")
def absorb_channel_mean_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (1 + scale.mean(-1, keepdim=True)), b + shift[:, 0] @ w.T


@wrong("absorb", "1 is subtracted from the scale")
def absorb_minus_one_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (scale - 1), b + shift[:, 0] @ w.T


@wrong("absorb", "The factor 1 + scale is used twice")
def absorb_squared_slip(weight, bias, shift, scale):
    w, b = weight, bias
    return w * (1 + scale) ** 2, b + shift[:, 0] @ w.T


# ---- dit_forward


@wrong("dit_forward", "The embedding of y is subtracted")
def dit_forward_difference_slip(parts, x, t, y):
    c = parts.t_embedder(t) - parts.y_embedder(y)
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The sum of the embeddings is doubled")
def dit_forward_sum_twice_slip(parts, x, t, y):
    c = 2 * (parts.t_embedder(t) + parts.y_embedder(y))
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The larger of both embeddings is taken, number by number")
def dit_forward_largest_slip(parts, x, t, y):
    c = torch.maximum(parts.t_embedder(t), parts.y_embedder(y))
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The timestep is counted from 1")
def dit_forward_t_plus_one_slip(parts, x, t, y):
    c = parts.t_embedder(t + 1) + parts.y_embedder(y)
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "All images get the first one's timestep")
def dit_forward_first_t_slip(parts, x, t, y):
    c = parts.t_embedder(t[:1]) + parts.y_embedder(y)
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The condition goes through a tanh")
def dit_forward_tanh_condition_slip(parts, x, t, y):
    c = torch.tanh(parts.t_embedder(t) + parts.y_embedder(y))
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The positions are subtracted")
def dit_forward_positions_subtracted_slip(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    z = parts.x_embedder(x) - parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The positions are added twice")
def dit_forward_positions_twice_slip(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    z = parts.x_embedder(x) + 2 * parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The image is not used")
def dit_forward_positions_only_slip(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    z = parts.pos_embed.expand(len(x), -1, -1)
    for block in parts.blocks:
        z = block(z, c)
    return unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The noise is returned twice")
def dit_forward_noise_twice_slip(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    image = unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size)
    eps = image.chunk(2, dim=1)[0]
    return eps, eps


@wrong("dit_forward", "The variance values go through a tanh")
def dit_forward_tanh_values_slip(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    z = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        z = block(z, c)
    eps, values = unpatchify(parts.final_layer(z, c), parts.grid, parts.patch_size).chunk(2, dim=1)
    return eps, values.tanh()


# ---- posterior_weights


@wrong("posterior_weights", "The weights are divided by the largest one")
def posterior_weights_over_largest_slip(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    logits = -gaps.square().sum((2, 3, 4)) / (2 * (1 - alpha_bar))[:, None]
    return (logits - logits.amax(1, keepdim=True)).exp()


@wrong("posterior_weights", "All images get the same weight, whatever the noisy image shows")
def posterior_weights_even_slip(x_t, alpha_bar, images):
    return torch.full((len(x_t), len(images)), 1 / len(images), dtype=x_t.dtype)


@wrong("posterior_weights", "The exponents are divided by their sum")
def posterior_weights_linear_slip(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    logits = -gaps.square().sum((2, 3, 4)) / (2 * (1 - alpha_bar))[:, None]
    return logits / logits.sum(1, keepdim=True)


@wrong("posterior_weights", "The softmax comes twice")
def posterior_weights_softmax_twice_slip(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    logits = -gaps.square().sum((2, 3, 4)) / (2 * (1 - alpha_bar))[:, None]
    return logits.softmax(1).softmax(1)


@wrong("posterior_weights", "The exponents are half as large as they should be")
def posterior_weights_half_exponent_slip(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    logits = -gaps.square().sum((2, 3, 4)) / (4 * (1 - alpha_bar))[:, None]
    return logits.softmax(1)


@wrong("posterior_weights", "The 2 of the density multiplies the distances")
def posterior_weights_half_variance_slip(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    logits = -gaps.square().sum((2, 3, 4)) / ((1 - alpha_bar) / 2)[:, None]
    return logits.softmax(1)


# ---- label_posterior


@wrong("label_posterior", "The sums are divided by the number of classes")
def label_posterior_over_classes_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = posterior(x_t, alpha_bar, images)
    table = F.one_hot(labels, num_classes).to(weights)
    return weights @ table / num_classes


@wrong("label_posterior", "The sums are divided by the number of all images")
def label_posterior_over_images_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = posterior(x_t, alpha_bar, images)
    table = F.one_hot(labels, num_classes).to(weights)
    return weights @ table / len(images)


@wrong("label_posterior", "The sums are multiplied by how frequent a class is")
def label_posterior_frequency_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = posterior(x_t, alpha_bar, images)
    table = F.one_hot(labels, num_classes).to(weights)
    return weights @ table * table.mean(0)


@wrong("label_posterior", "These are logarithms of the probabilities of the classes")
def label_posterior_logarithms_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = posterior(x_t, alpha_bar, images)
    table = F.one_hot(labels, num_classes).to(weights)
    return (weights @ table).log()


@wrong("label_posterior", "The probabilities of a class are multiplied")
def label_posterior_products_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = posterior(x_t, alpha_bar, images)
    F.one_hot(labels, num_classes).to(weights)
    return torch.stack([weights[:, labels == i].prod(1) for i in range(num_classes)], dim=1)


@wrong("label_posterior", "This is the probability that it is another class")
def label_posterior_complement_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = posterior(x_t, alpha_bar, images)
    table = F.one_hot(labels, num_classes).to(weights)
    return 1 - weights @ table


# ---- patchify


@wrong("patchify", "Within a patch, all pixels of one channel come first, and column by column")
def patchify_column_by_column_channels_slip(images, patch_size):
    p = patch_size
    return rearrange(images, "n c (h p) (w q) -> n (h w) (c q p)", p=p, q=p)


@wrong("patchify", "Rows and columns are exchanged everywhere")
def patchify_transposed_all_slip(images, patch_size):
    p = patch_size
    return rearrange(images, "n c (h p) (w q) -> n (w h) (q p c)", p=p, q=p)


@wrong(
    "patchify", "The patches are laid out column by column, and in each all pixels of one channel come first"
)
def patchify_transposed_grid_channels_slip(images, patch_size):
    p = patch_size
    return rearrange(images, "n c (h p) (w q) -> n (w h) (c p q)", p=p, q=p)


@wrong("patchify", "The tokens are columns")
def patchify_tokens_last_slip(images, patch_size):
    p = patch_size
    return rearrange(images, "n c (h p) (w q) -> n (p q c) (h w)", p=p, q=p)


@wrong("patchify", "A token is a whole row of patches")
def patchify_rows_only_slip(images, patch_size):
    p = patch_size
    return rearrange(images, "n c (h p) (w q) -> n h (p w q c)", p=p, q=p)


@wrong("patchify", "The tokens of all images stand in one sequence")
def patchify_batch_slip(images, patch_size):
    p = patch_size
    return rearrange(images, "n c (h p) (w q) -> (n h w) (p q c)", p=p, q=p)


@wrong("patchify", "The image is turned upside down before it is cut")
def patchify_upside_down_slip(images, patch_size):
    return patchify(images.flip(2), patch_size)


@wrong("patchify", "The image is mirrored before it is cut")
def patchify_mirrored_slip(images, patch_size):
    return patchify(images.flip(3), patch_size)


# ---- shift_positions


@wrong("shift_positions", "The steps are converted as if they were degrees")
def shift_positions_degrees_slip(codes, steps):
    half = codes.shape[1] // 2
    angles = steps * math.pi / 180 / 10000 ** (torch.arange(half).double() / half)
    sines, cosines = codes.chunk(2, dim=1)
    return torch.cat(
        [sines * angles.cos() + cosines * angles.sin(), cosines * angles.cos() - sines * angles.sin()], dim=1
    )


@wrong("shift_positions", "The steps are treated as full turns")
def shift_positions_turns_slip(codes, steps):
    half = codes.shape[1] // 2
    angles = 2 * math.pi * steps / 10000 ** (torch.arange(half).double() / half)
    sines, cosines = codes.chunk(2, dim=1)
    return torch.cat(
        [sines * angles.cos() + cosines * angles.sin(), cosines * angles.cos() - sines * angles.sin()], dim=1
    )


@wrong("shift_positions", "The longest wave belongs to a period of 1000")
def shift_positions_period_thousand_slip(codes, steps):
    half = codes.shape[1] // 2
    angles = steps / 1000 ** (torch.arange(half).double() / half)
    sines, cosines = codes.chunk(2, dim=1)
    return torch.cat(
        [sines * angles.cos() + cosines * angles.sin(), cosines * angles.cos() - sines * angles.sin()], dim=1
    )


@wrong("shift_positions", "The positions are moved by twice the steps")
def shift_positions_twice_slip(codes, steps):
    half = codes.shape[1] // 2
    angles = 2 * steps / 10000 ** (torch.arange(half).double() / half)
    sines, cosines = codes.chunk(2, dim=1)
    return torch.cat(
        [sines * angles.cos() + cosines * angles.sin(), cosines * angles.cos() - sines * angles.sin()], dim=1
    )


@wrong("shift_positions", "The positions are moved by one step, whatever is asked for")
def shift_positions_one_step_slip(codes, steps):
    half = codes.shape[1] // 2
    angles = 1.0 / 10000 ** (torch.arange(half).double() / half)
    sines, cosines = codes.chunk(2, dim=1)
    return torch.cat(
        [sines * angles.cos() + cosines * angles.sin(), cosines * angles.cos() - sines * angles.sin()], dim=1
    )


@wrong("shift_positions", "The sign of the steps is lost")
def shift_positions_no_sign_slip(codes, steps):
    half = codes.shape[1] // 2
    angles = abs(steps) / 10000 ** (torch.arange(half).double() / half)
    sines, cosines = codes.chunk(2, dim=1)
    return torch.cat(
        [sines * angles.cos() + cosines * angles.sin(), cosines * angles.cos() - sines * angles.sin()], dim=1
    )


# ---- add_scores


@wrong("add_scores", "The second head's keys stand in both halves")
def add_scores_second_keys_slip(q1, k1, q2, k2):
    return (2**0.5 * torch.cat([q1, q2], -1), torch.cat([k2, k2], -1))


@wrong("add_scores", "The second head's queries stand in both halves")
def add_scores_second_queries_slip(q1, k1, q2, k2):
    return (2**0.5 * torch.cat([q2, q2], -1), torch.cat([k1, k2], -1))


@wrong("add_scores", "The first head's queries stand in both halves")
def add_scores_first_queries_slip(q1, k1, q2, k2):
    return (2**0.5 * torch.cat([q1, q1], -1), torch.cat([k1, k2], -1))


@wrong("add_scores", "The second head's scores are subtracted")
def add_scores_difference_slip(q1, k1, q2, k2):
    return (2**0.5 * torch.cat([q1, -q2], -1), torch.cat([k1, k2], -1))


@wrong("add_scores", "The scores are too small by the fourth root of 2")
def add_scores_fourth_root_slip(q1, k1, q2, k2):
    return (2**0.25 * torch.cat([q1, q2], -1), torch.cat([k1, k2], -1))


@wrong("add_scores", "The factor is the root of a head's width")
def add_scores_root_of_width_slip(q1, k1, q2, k2):
    return (q1.shape[-1] ** 0.5 * torch.cat([q1, q2], -1), torch.cat([k1, k2], -1))


# ---- attention


@wrong("attention", "Negative scores become 0, and there is no softmax")
def attention_relu_slip(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.relu() @ v


@wrong("attention", "All keys get the same weight")
def attention_even_slip(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return torch.full_like(scores, 1 / k.shape[2]) @ v


@wrong("attention", "The scores lose their sign before the softmax")
def attention_absolute_slip(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.abs().softmax(-1) @ v


@wrong("attention", "The scores go through a tanh, one by one")
def attention_tanh_slip(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.tanh() @ v


@wrong("attention", "The weighted mean is divided by the number of keys")
def attention_mean_again_slip(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) / k.shape[2] @ v


@wrong("attention", "The scores go through a sigmoid before they are divided by their sum")
def attention_sigmoids_over_sum_slip(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.sigmoid() / scores.sigmoid().sum(-1, keepdim=True) @ v


# ---- paired_interval


@wrong("paired_interval", "The spread divides by n - 1 twice")
def paired_interval_root_n_minus_one_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / (n - 1) ** 0.5
    half = stats.t.ppf((1 + level) / 2, n - 1) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The middle is the median of the differences")
def paired_interval_median_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(np.median(gaps)), float(gaps.std(ddof=1)) / n**0.5
    half = stats.t.ppf((1 + level) / 2, n - 1) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The first number is the median of the differences")
def paired_interval_median_only_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / n**0.5
    half = stats.t.ppf((1 + level) / 2, n - 1) * spread
    return float(np.median(gaps)), middle - half, middle + half


@wrong(
    "paired_interval", "The quantile is taken at 1 - level / 2, as if level were the error that is allowed"
)
def paired_interval_half_of_level_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / n**0.5
    half = stats.t.ppf(1 - level / 2, n - 1) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The quantile is the normal distribution's, and one-sided")
def paired_interval_normal_one_sided_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / n**0.5
    half = stats.norm.ppf(level) * spread
    return middle, middle - half, middle + half


@wrong(
    "paired_interval", "The quantile is the normal distribution's, and the standard deviation divides by n"
)
def paired_interval_normal_and_n_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std()) / n**0.5
    half = stats.norm.ppf((1 + level) / 2) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The degrees of freedom are those of two independent groups, 2n - 2")
def paired_interval_two_n_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / n**0.5
    half = stats.t.ppf((1 + level) / 2, 2 * n - 2) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The spread is the second variant's alone")
def paired_interval_second_spread_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(second.std()) / n**0.5
    half = stats.t.ppf((1 + level) / 2, n - 1) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The half width is halved")
def paired_interval_half_width_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / n**0.5
    half = 0.5 * stats.t.ppf((1 + level) / 2, n - 1) * spread
    return middle, middle - half, middle + half


@wrong("paired_interval", "The half width is doubled")
def paired_interval_double_width_slip(first, second, level):
    from scipy import stats

    gaps, n = (second - first).numpy(), len(first)
    middle, spread = float(gaps.mean()), float(gaps.std(ddof=1)) / n**0.5
    half = 2 * stats.t.ppf((1 + level) / 2, n - 1) * spread
    return middle, middle - half, middle + half


# ---- generate


@wrong("generate", "The latents are clipped to [-1, 1] before the scale is undone")
def generate_clamps_scaled_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode(z.clamp(-1, 1) / scale + shift).clamp(-1, 1)


@wrong("generate", "The clipping comes before decoding instead of after it")
def generate_clamps_raw_only_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode((z / scale + shift).clamp(-1, 1))


@wrong("generate", "The latents are clipped before the scale is undone, and the images are not clipped")
def generate_clamps_scaled_only_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode(z.clamp(-1, 1) / scale + shift)


@wrong("generate", "Scale and shift are undone twice")
def generate_unscaled_twice_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode((z / scale + shift) / scale + shift).clamp(-1, 1)


@wrong("generate", "The images go through a tanh")
def generate_tanh_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode(z / scale + shift).tanh()


@wrong("generate", "Scale and shift are undone after every step")
def generate_unscales_in_loop_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
            z = z / scale + shift
        return decode(z).clamp(-1, 1)


@wrong("generate", "Scale and shift are undone in the images")
def generate_unscales_images_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return (decode(z) / scale + shift).clamp(-1, 1)


@wrong("generate", "Scale and shift are undone in the noise")
def generate_unscales_noise_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        z = z / scale + shift
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode(z).clamp(-1, 1)


@wrong("generate", "The noise is scaled like an encoded image")
def generate_scales_noise_slip(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        z = (z - shift) * scale
        for k in reversed(range(num_steps)):
            z = step(z, torch.full((len(z),), k), y)
        return decode(z / scale + shift).clamp(-1, 1)


# ---- update_ema


@wrong(
    "update_ema",
    "The decay that is returned is right, but the average was mixed with the one that was asked for",
)
def update_ema_mixes_with_decay_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(decay * old + (1 - decay) * new)
    return used


@wrong("update_ema", "The old average is not scaled")
def update_ema_old_unscaled_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(old + (1 - used) * new)
    return used


@wrong("update_ema", "The new weights are not scaled")
def update_ema_new_unscaled_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(used * old + new)
    return used


@wrong("update_ema", "Old and new are averaged half and half")
def update_ema_half_and_half_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_((old + new) / 2)
    return used


@wrong("update_ema", "The new weights are subtracted")
def update_ema_subtracts_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(old - (1 - used) * new)
    return used


@wrong("update_ema", "The average moves away from the new weights")
def update_ema_away_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(old + (1 - used) * (old - new))
    return used


@wrong("update_ema", "The new weights are never added")
def update_ema_only_decays_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, _new in zip(average.parameters(), model.parameters()):
            old.copy_(used * old)
    return used


@wrong(
    "update_ema",
    "The average is right, but it returns the value of the warm-up even where the decay is smaller",
)
def update_ema_returns_warmup_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(used * old + (1 - used) * new)
    return (1 + step) / (10 + step)


@wrong("update_ema", "The warm-up is nearly 1/10 for long")
def update_ema_slow_warmup_slip(average, model, decay, step):
    used = min(decay, (1 + step) / (1 + 10 * step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(used * old + (1 - used) * new)
    return used


@wrong("update_ema", "The warm-up starts at 0")
def update_ema_zero_warmup_slip(average, model, decay, step):
    used = min(decay, step / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_(used * old + (1 - used) * new)
    return used


# ---- training_step


@wrong("training_step", "The scheduler is called twice")
def training_step_scheduler_twice_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "The scheduler is called before and after the optimizer")
def training_step_scheduler_around_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scheduler.step()
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "The optimizer is called twice")
def training_step_optimizer_twice_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "The gradient is clipped at another norm than 1")
def training_step_clip_ten_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


# ---- overfit


@wrong("overfit", "Timesteps and labels are passed in the wrong order")
def overfit_t_and_y_slip(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(x0, t, y, noise))
    return losses


@wrong("overfit", "Timesteps and noise are passed in the wrong order")
def overfit_t_and_noise_slip(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(x0, y, noise, t))
    return losses


@wrong("overfit", "Images and noise are passed in the wrong order")
def overfit_images_and_noise_slip(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(noise, y, t, x0))
    return losses


@wrong("overfit", "The noise is added to the images")
def overfit_noisy_images_slip(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(x0 + noise, y, t, noise))
    return losses


@wrong("overfit", "The timesteps are divided by 1000")
def overfit_fractions_slip(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(x0, y, t / 1000, noise))
    return losses


# ---- q_posterior


@wrong("q_posterior", "The weight of x_t has the root of beta where that of 1 - beta belongs")
def q_posterior_root_beta_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    of_x0 = betas * before.sqrt() / (1 - bar)
    of_xt = (1 - before) * betas.sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The weight of x_0 has the root of beta")
def q_posterior_root_beta_clean_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    of_x0 = betas.sqrt() * before.sqrt() / (1 - bar)
    of_xt = (1 - before) * (1 - betas).sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The log variance is shifted by one entry: at t it is that of t - 1")
def q_posterior_late_variance_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    log = torch.cat([log[:1], log[:-1]])
    of_x0 = betas * before.sqrt() / (1 - bar)
    of_xt = (1 - before) * (1 - betas).sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The log variance is shifted by one entry: at t it is that of t + 1")
def q_posterior_early_variance_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    log = torch.cat([log[1:], log[-1:]])
    of_x0 = betas * before.sqrt() / (1 - bar)
    of_xt = (1 - before) * (1 - betas).sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The weights are divided by the root of the noise after the step")
def q_posterior_root_noise_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    of_x0 = betas * before.sqrt() / (1 - bar).sqrt()
    of_xt = (1 - before) * (1 - betas).sqrt() / (1 - bar).sqrt()
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The weight of x_t has the root of the noise before the step")
def q_posterior_root_before_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    of_x0 = betas * before.sqrt() / (1 - bar)
    of_xt = ((1 - before) * (1 - betas)).sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The weight of x_t has the signal before the step where the noise before it belongs")
def q_posterior_signal_before_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    of_x0 = betas * before.sqrt() / (1 - bar)
    of_xt = before * (1 - betas).sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


@wrong("q_posterior", "The weight of x_0 lacks beta")
def q_posterior_no_beta_slip(x0, x_t, t, betas):
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    log = torch.cat([variance[1:2], variance[1:]]).log()
    of_x0 = before.sqrt() / (1 - bar)
    of_xt = (1 - before) * (1 - betas).sqrt() / (1 - bar)
    pick = lambda table: table[t].view(-1, 1, 1, 1)  # noqa: E731
    return pick(of_x0) * x0 + pick(of_xt) * x_t, pick(log)


# ---- q_sample


@wrong("q_sample", "The coefficients fall on a straight line in t")
def q_sample_linear_slip(x0, t, noise, alphas_cumprod):
    bar = (t / 1000).double().view(-1, 1, 1, 1)
    return (1 - bar) * x0 + bar * noise


@wrong("q_sample", "The table is read from its end")
def q_sample_reversed_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod.flip(0)[t].view(-1, 1, 1, 1)
    return bar.sqrt() * x0 + (1 - bar).sqrt() * noise


@wrong("q_sample", "The roots are taken twice")
def q_sample_fourth_roots_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return bar.sqrt().sqrt() * x0 + (1 - bar).sqrt().sqrt() * noise


@wrong("q_sample", "The signal's coefficient is 1 minus the noise's")
def q_sample_one_minus_noise_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return (1 - (1 - bar).sqrt()) * x0 + (1 - bar).sqrt() * noise


@wrong("q_sample", "Image and noise both have the noise's coefficient")
def q_sample_noise_twice_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return (1 - bar).sqrt() * (x0 + noise)


@wrong("q_sample", "Image and noise are added without coefficients")
def q_sample_no_coefficients_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return x0 + noise + 0 * bar


@wrong("q_sample", "The image keeps its full strength, and the noise grows beyond 1")
def q_sample_exploding_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return x0 + ((1 - bar) / bar).sqrt() * noise


@wrong("q_sample", "This is the velocity")
def q_sample_velocity_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return bar.sqrt() * noise - (1 - bar).sqrt() * x0


@wrong("q_sample", "The image is missing")
def q_sample_noise_only_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return (1 - bar).sqrt() * noise


@wrong("q_sample", "The noise is missing")
def q_sample_signal_only_slip(x0, t, noise, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    return bar.sqrt() * x0


# ---- ddim_step


@wrong("ddim_step", "Sigma is subtracted after the root")
def ddim_step_root_minus_sigma_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + ((1 - before).sqrt() - sigma) * old + sigma * noise


@wrong("ddim_step", "Sigma squared is added to the old noise")
def ddim_step_plus_sigma_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before + sigma**2).sqrt() * old + sigma * noise


@wrong("ddim_step", "The old noise is multiplied by 1 - sigma")
def ddim_step_times_one_minus_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before).sqrt() * (1 - sigma) * old + sigma * noise


@wrong("ddim_step", "The old noise is scaled as if the earlier level were pure noise")
def ddim_step_without_before_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - sigma**2).clamp(min=0).sqrt() * old + sigma * noise


@wrong("ddim_step", "The old noise is scaled by 1 minus a root")
def ddim_step_one_minus_root_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before.sqrt()) * old + sigma * noise


@wrong("ddim_step", "The table of earlier levels is read one entry early")
def ddim_step_previous_twice_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    before = col(diffusion.alphas_cumprod_prev, t - 1)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * old + sigma * noise


@wrong("ddim_step", "The table of earlier levels is read one entry early, from t = 1 on")
def ddim_step_previous_twice_clamped_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    before = col(diffusion.alphas_cumprod_prev, (t - 1).clamp(min=0))
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * old + sigma * noise


@wrong("ddim_step", "The fresh noise is subtracted")
def ddim_step_minus_noise_slip(diffusion, prediction, x_t, t, noise, eta):
    before = col(diffusion.alphas_cumprod_prev, t)
    after = col(diffusion.alphas_cumprod, t)
    sigma = eta * ((1 - before) / (1 - after) * (1 - after / before)).clamp(min=0).sqrt()
    old = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * old - sigma * noise


# ---- even_log_snr


@wrong("even_log_snr", "The timesteps are counted from 1")
def even_log_snr_from_one_slip(alphas_cumprod, steps):
    snr = alphas_cumprod / (1 - alphas_cumprod)
    values = snr.log()
    wanted = torch.linspace(float(values[0]), float(values[-1]), steps, dtype=torch.float64)
    return (values - wanted[:, None]).abs().argmin(1) + 1


@wrong("even_log_snr", "The timesteps are even in noise over signal")
def even_log_snr_noise_over_signal_slip(alphas_cumprod, steps):
    snr = alphas_cumprod / (1 - alphas_cumprod)
    values = 1 / snr
    wanted = torch.linspace(float(values[0]), float(values[-1]), steps, dtype=torch.float64)
    return (values - wanted[:, None]).abs().argmin(1)


@wrong("even_log_snr", "The timesteps are even in the root of SNR")
def even_log_snr_root_of_snr_slip(alphas_cumprod, steps):
    snr = alphas_cumprod / (1 - alphas_cumprod)
    values = snr.sqrt()
    wanted = torch.linspace(float(values[0]), float(values[-1]), steps, dtype=torch.float64)
    return (values - wanted[:, None]).abs().argmin(1)


@wrong("even_log_snr", "The timesteps are even in the angle between signal and noise")
def even_log_snr_angle_slip(alphas_cumprod, steps):
    alphas_cumprod / (1 - alphas_cumprod)
    values = alphas_cumprod.sqrt().acos()
    wanted = torch.linspace(float(values[0]), float(values[-1]), steps, dtype=torch.float64)
    return (values - wanted[:, None]).abs().argmin(1)


@wrong("even_log_snr", "The timesteps are counted from the noisy end")
def even_log_snr_mirrored_slip(alphas_cumprod, steps):
    snr = alphas_cumprod / (1 - alphas_cumprod)
    values = snr.log()
    wanted = torch.linspace(float(values[0]), float(values[-1]), steps, dtype=torch.float64)
    found = (values - wanted[:, None]).abs().argmin(1)
    return len(snr) - 1 - found.flip(0)


# ---- second_order_step


@wrong("second_order_step", "The step is divided by the length of both steps together")
def second_order_step_share_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    last, h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + h / (h + last) * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong("second_order_step", "Half of the step is divided by the length of both steps together")
def second_order_step_half_share_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    last, h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + h / (h + last) / 2 * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong("second_order_step", "Half of the step is used without the length of the step before")
def second_order_step_half_alone_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    _last, h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + h / 2 * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong("second_order_step", "The step is used without the length of the step before, and in full")
def second_order_step_step_alone_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    _last, h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + h * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong("second_order_step", "The length of the step before is divided by that of both")
def second_order_step_last_share_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    last, h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + last / (h + last) * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong("second_order_step", "The slope is used for half a unit of lambda, whatever the length of the step")
def second_order_step_half_over_last_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    last, _h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + 0.5 / last * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong(
    "second_order_step",
    "Both steps are treated as equally long, and the predicted image is extrapolated to the end of the step",
)
def second_order_step_equal_full_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    _last, _h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + 1.0 * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


@wrong("second_order_step", "The ratio of the two step lengths is upside down, and the half is missing")
def second_order_step_upside_down_full_slip(x, x0, last_x0, before, now, after):
    lam = [0.5 * torch.log(bar / (1 - bar)) for bar in (before, now, after)]
    last, h = lam[1] - lam[0], lam[2] - lam[1]
    middle = x0 + last / h * (x0 - last_x0)
    less = ((1 - after) / (1 - now)).sqrt()
    return less * x + (after.sqrt() - less * now.sqrt()) * middle


# ---- guided_output


@wrong("guided_output", "The halves are taken along the batch")
def guided_output_images_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=0)
    other, _ = uncond.chunk(2, dim=0)
    return torch.cat([other + cfg_scale * (eps - other), values], dim=0)


@wrong("guided_output", "The halves are joined along the batch")
def guided_output_joined_images_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    other, _ = uncond.chunk(2, dim=1)
    return torch.cat([other + cfg_scale * (eps - other), values])


@wrong("guided_output", "The outputs are split along the batch and joined along the channels")
def guided_output_split_images_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2)
    other, _ = uncond.chunk(2)
    return torch.cat([other + cfg_scale * (eps - other), values], dim=1)


@wrong("guided_output", "The variance values of both outputs are added")
def guided_output_added_values_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    other, _ = uncond.chunk(2, dim=1)
    return torch.cat([other + cfg_scale * (eps - other), values + uncond.chunk(2, dim=1)[1]], dim=1)


@wrong("guided_output", "The guidance is subtracted")
def guided_output_away_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    other, _ = uncond.chunk(2, dim=1)
    return torch.cat([other - cfg_scale * (eps - other), values], dim=1)


@wrong("guided_output", "Both predictions of the noise are added in full")
def guided_output_sum_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    other, _ = uncond.chunk(2, dim=1)
    return torch.cat([other + cfg_scale * eps, values], dim=1)


@wrong("guided_output", "The noise with the label is scaled")
def guided_output_only_label_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    other, _ = uncond.chunk(2, dim=1)
    return torch.cat([cfg_scale * eps, values], dim=1)


@wrong("guided_output", "The noise is the mean of both predictions")
def guided_output_mean_slip(cond, uncond, cfg_scale):
    eps, values = cond.chunk(2, dim=1)
    other, _ = uncond.chunk(2, dim=1)
    return torch.cat([(eps + other) / 2, values], dim=1)


# ---- frechet


@wrong("frechet", "The root is that of the sum of the covariances")
def frechet_root_of_sum_slip(a, b):
    one, two = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    gap = (a.mean(0) - b.mean(0)).square().sum()
    values, vectors = torch.linalg.eigh(one + two)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.mT
    return gap + one.trace() + two.trace() - 2 * root.trace()


@wrong("frechet", "The root is that of the mean of the covariances")
def frechet_root_of_mean_slip(a, b):
    one, two = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    gap = (a.mean(0) - b.mean(0)).square().sum()
    values, vectors = torch.linalg.eigh((one + two) / 2)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.mT
    return gap + one.trace() + two.trace() - 2 * root.trace()


@wrong("frechet", "Two traces are multiplied")
def frechet_product_of_traces_slip(a, b):
    one, two = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return gap + one.trace() + two.trace() - 2 * one.trace() * two.trace()


@wrong("frechet", "The size of the product stands where its root's trace belongs")
def frechet_frobenius_slip(a, b):
    one, two = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return gap + one.trace() + two.trace() - 2 * (one @ two).norm()


@wrong("frechet", "The term with the root is missing")
def frechet_no_root_slip(a, b):
    one, two = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return gap + one.trace() + two.trace()


# ---- from_velocity


@wrong(
    "from_velocity",
    "In the image and in the score's noise x_t and the velocity have each other's coefficients",
)
def from_velocity_both_exchanged_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return n * x - s * v, -(s * x + n * v) / n


@wrong("from_velocity", "The image has the wrong sign")
def from_velocity_negative_image_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return n * v - s * x, -(n * x + s * v) / n


@wrong("from_velocity", "The image is divided by the signal's coefficient")
def from_velocity_image_over_signal_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return (s * x - n * v) / s, -(n * x + s * v) / n


@wrong("from_velocity", "In the image x_t lacks its coefficient")
def from_velocity_image_x_plain_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return x - n * v, -(n * x + s * v) / n


@wrong("from_velocity", "In the image the velocity lacks its coefficient")
def from_velocity_image_v_plain_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return s * x - v, -(n * x + s * v) / n


@wrong("from_velocity", "The score's noise is x_t plus the velocity, without coefficients")
def from_velocity_score_plain_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return s * x - n * v, -(x + v) / n


@wrong("from_velocity", "In the score's noise the velocity lacks its coefficient")
def from_velocity_score_v_plain_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return s * x - n * v, -(n * x + v) / n


@wrong("from_velocity", "In the score's noise x_t lacks its coefficient")
def from_velocity_score_x_plain_slip(x_t, t, v, alphas_cumprod):
    bar = alphas_cumprod[t].view(-1, 1, 1, 1)
    s, n, x = bar.sqrt(), (1 - bar).sqrt(), x_t
    return s * x - n * v, -(x + s * v) / n


# ---- to_latents


@wrong("to_latents", "The mean is scaled and shifted after it, and the noise is not scaled")
def to_latents_mean_alone_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return m * scale - shift + (v / 2).exp() * e


@wrong("to_latents", "The noise is scaled twice")
def to_latents_noise_scaled_twice_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return (m + scale * (v / 2).exp() * e - shift) * scale


@wrong("to_latents", "The scale comes before and after the shift")
def to_latents_mean_scaled_twice_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return ((m + (v / 2).exp() * e) * scale - shift) * scale


@wrong("to_latents", "The logarithm of the standard deviation is used instead of the standard deviation")
def to_latents_half_logarithm_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return (m + v / 2 * e - shift) * scale


@wrong("to_latents", "The mean multiplies the noise")
def to_latents_mean_times_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return (m * (1 + (v / 2).exp() * e) - shift) * scale


@wrong("to_latents", "Mean and noise are exchanged")
def to_latents_exchanged_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return (e + (v / 2).exp() * m - shift) * scale


@wrong("to_latents", "The mean is missing")
def to_latents_no_mean_slip(mean, log_variance, noise, scale, shift):
    _m, v, e = mean, log_variance, noise
    return ((v / 2).exp() * e - shift) * scale


@wrong("to_latents", "The standard deviation is a softplus of the logarithm")
def to_latents_softplus_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return (m + torch.nn.functional.softplus(v) * e - shift) * scale


@wrong("to_latents", "The latents are clipped to [-1, 1]")
def to_latents_clipped_slip(mean, log_variance, noise, scale, shift):
    m, v, e = mean, log_variance, noise
    return (m + (v / 2).exp() * e - shift).clamp(-1, 1) * scale


@wrong("to_latents", "The noise is added unscaled after the mean is encoded")
def to_latents_unit_noise_slip(mean, log_variance, noise, scale, shift):
    m, e = mean, noise
    return (m - shift) * scale + e


@wrong("split_condition", "or a single channel")
def split_condition_one_channel_slip(c, t_table, y_table):
    sums = (t_table[:, None] + y_table).flatten(0, 1)
    best = (c[:, 0, None] - sums[:, 0]).abs().argmin(1)
    return best // len(y_table), best % len(y_table)


@wrong("split_condition", "or the smallest distance is split")
def split_condition_smallest_slip(c, t_table, y_table):
    smallest = torch.cdist(c, (t_table[:, None] + y_table).flatten(0, 1)).min(1).values
    return (smallest // len(y_table)).long(), (smallest % len(y_table)).long()


@wrong("split_condition", "The timesteps have shape (8, 80)")
def split_condition_no_argmin_slip(c, t_table, y_table):
    distances = torch.cdist(c, (t_table[:, None] + y_table).flatten(0, 1))
    return distances // len(y_table), distances % len(y_table)


# ---- sizes written as numbers


@wrong("patchify", "right for patch_size = 2 and wrong for all other values")
def patchify_p_is_2_slip(images, patch_size):
    return rearrange(images, "n c (h p) (w q) -> n (h w) (p q c)", p=2, q=2)


@wrong("patchify", "right if axis 1 of images has size 3")
def patchify_c_is_3_slip(images, patch_size):
    n, c, height, width = images.shape
    cut = images.reshape(n, 3, height // patch_size, patch_size, width // patch_size, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch_size**2 * 3)


@wrong("unpatchify", "right for patch_size = 2 and wrong for all other values")
def unpatchify_p_is_2_slip(tokens, grid, patch_size):
    return rearrange(tokens, "n (h w) (p q c) -> n c (h p) (w q)", h=grid[0], w=grid[1], p=2, q=2)


@wrong("unpatchify", "right for C = 3 and wrong for all other numbers of channels")
def unpatchify_c_is_3_slip(tokens, grid, patch_size):
    p = patch_size
    cut = tokens.reshape(len(tokens), *grid, p, p, 3).permute(0, 5, 1, 3, 2, 4)
    return cut.reshape(len(tokens), 3, grid[0] * p, grid[1] * p)


# ---- precision


def always_double(fn):
    return lambda *args: fn(*(a.double() if isinstance(a, torch.Tensor) else a for a in args))


def named(name, fn):
    fn.__name__ = name
    return fn


for exercise in (
    "patchify",
    "unpatchify",
    "conv_to_linear",
    "attention",
    "multi_head",
    "layer_norm",
    "modulate",
):
    words = "right in float64 and not in all precisions"
    wrong(exercise, words)(
        named(f"{exercise}_always_double_slip", always_double(reference_solution(exercise)))
    )


@wrong("attention", "not in all precisions: it stopped with RuntimeError")
def attention_double_scores_slip(q, k, v):
    scores = (q @ k.mT).double() / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v


@wrong("sincos_1d", "computed in float32, which knows")
def sincos_1d_float32_slip(positions, dim):
    angles = positions.float()[:, None] * 10000 ** (-torch.arange(dim // 2) / (dim // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong("zero_init", "Weight and bias are new tensors")
def zero_init_float32_slip(linear):
    linear.weight = torch.nn.Parameter(torch.zeros(linear.weight.shape))
    linear.bias = torch.nn.Parameter(torch.zeros(linear.bias.shape))


# ---- edges


@wrong("discretized_gaussian_nll", "they need only broadcast")
def discretized_gaussian_nll_no_broadcast_slip(x, mean, log_scale, bins):
    half, gap, scale = 1 / (bins - 1), x - mean.reshape(x.shape), log_scale.exp()
    upper, lower = torch.special.ndtr((gap + half) / scale), torch.special.ndtr((gap - half) / scale)
    upper, lower = torch.where(x > 1 - half, 1.0, upper), torch.where(x < half - 1, 0.0, lower)
    return -(upper - lower).clamp(min=1e-12).log()


@wrong("label_dropout", "except for a dropout_prob of 1")
def label_dropout_none_at_one_slip(y, uniform, dropout_prob, num_classes, training):
    return torch.where((uniform % 1 < dropout_prob % 1) & training, num_classes, y)


@wrong("label_dropout", "torch.int32, but must be torch.int64")
def label_dropout_int32_slip(y, uniform, dropout_prob, num_classes, training):
    return torch.where((uniform < dropout_prob) & training, num_classes, y).int()


# ---- found by a trial with fresh mistakes


@wrong("cfg_eps", "limited to -1 to 1")
def cfg_eps_clamped_slip(cond, uncond, cfg_scale):
    return (uncond + cfg_scale * (cond - uncond)).clamp(-1, 1)


@wrong("cfg_eps", "scaled to the size of the prediction with the label")
def cfg_eps_rescaled_slip(cond, uncond, cfg_scale):
    guided = uncond + cfg_scale * (cond - uncond)
    return guided * cond.std() / guided.std()


@wrong("guided_output", "Every second channel is guided")
def guided_output_every_second_slip(cond, uncond, cfg_scale):
    out = cond.clone()
    out[:, ::2] = uncond[:, ::2] + cfg_scale * (cond - uncond)[:, ::2]
    return out


@wrong("label_mask", "The image and t itself lose t, not y")
def label_mask_column_of_t_and_itself_slip(T):
    mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
    mask[: T + 1, T] = False
    return mask


@wrong("layer_norm", "scaled from their smallest to their largest number")
def layer_norm_both_ends_slip(x, eps):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return 2 * (x - low) / (high - low + eps) - 1


@wrong("overfit", "seeded again in every step")
def overfit_seeded_slip(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        generator.manual_seed(0)
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, torch.randn(x0.shape, generator=generator)))
    return losses


@wrong("timestep_of_snr", "unless a ratio is reached exactly")
def timestep_of_snr_tie_slip(betas, std, snr):
    bar = (1 - betas).cumprod(0)
    return (std**2 * bar / (1 - bar) >= snr[:, None]).sum(1)


@wrong("timestep_of_snr", "one step early, except at 0")
def timestep_of_snr_last_above_slip(betas, std, snr):
    bar = (1 - betas).cumprod(0)
    return ((std**2 * bar / (1 - bar) > snr[:, None]).sum(1) - 1).clamp(min=0)


@wrong("combine_conditions", "is missing, or it cancels")
def combine_cancels_slip(uncond, conds, weights):
    return uncond + torch.tensordot(weights, conds, dims=1) - uncond


def step_that_returns(result):
    def step(model, optimizer, scheduler, diffusion, x0, y, t, noise):
        optimizer.zero_grad()
        loss = diffusion.training_losses(model, x0, t, y, noise=noise)["loss"].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        return result(loss)

    return step


for kind, result, words in (
    ("tensor", torch.Tensor.detach, "The returned loss is a tensor; return a plain number"),
    (
        "list",
        lambda loss: [loss.item()],
        "must return the mean loss, a plain number, but returns a list of 1 thing",
    ),
    ("text", lambda loss: str(loss.item()), "must return the mean loss, a plain number, but returns a str"),
    ("array", lambda loss: loss.detach().numpy(), "a plain number, but returns a NumPy array"),
):
    wrong("training_step", words)(named(f"training_step_returns_{kind}_slip", step_that_returns(result)))


@wrong("mean_ablation", "It swallows the error of the model: the caller")
def mean_ablation_swallows_slip(model, layer, x):
    handle = layer.register_forward_hook(lambda m, args, out: out.mean(0, keepdim=True).expand_as(out))
    try:
        return model(x)
    except Exception:
        return None
    finally:
        handle.remove()


@wrong("mean_ablation", "It swallows the error of the model, and leaves the hook there")
def mean_ablation_swallows_and_leaves_slip(model, layer, x):
    handle = layer.register_forward_hook(lambda m, args, out: out.mean(0, keepdim=True).expand_as(out))
    try:
        out = model(x)
        handle.remove()
        return out
    except RuntimeError as error:
        print(error)


# ---- found by a second trial with fresh mistakes, in lessons 30 to 35


@wrong("sit_step", "is added to the velocity")
def sit_step_both_halves_slip(sit, x, t, t_next):
    velocity, rest = sit(x, 1 - t).chunk(2, 1)
    return x + (t - t_next)[:, None, None, None] * (velocity + rest)


@wrong("axial_rotation", "divided by the number of rows")
def axial_rotation_by_rows_slip(x, rows, columns, theta):
    d = x.shape[-1] // 2
    omega = theta ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    places = [[n // rows, n % rows] for n in range(rows * columns)]
    angles = (torch.tensor(places, dtype=x.dtype)[..., None] * omega).flatten(1)
    a, b = x[..., 0::2], x[..., 1::2]
    turned = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
    return torch.stack(turned, -1).flatten(-2)


@wrong("three_predictions", "followed the wrong way")
def three_predictions_wrong_way_slip(prediction, x_t, t, predicts):
    t = t[:, None, None, None]
    if predicts == "velocity":
        image, noise = x_t + t * prediction, x_t - (1 - t) * prediction
    elif predicts == "image":
        image, noise = prediction, (x_t - (1 - t) * prediction) / t
    else:
        image, noise = (x_t - t * prediction) / (1 - t), prediction
    return image, noise, noise - image


def velocity_loss_over(divide):
    def loss(prediction, x0, noise, t, predicts, least):
        target = {"noise": noise, "image": x0, "velocity": noise - x0}[predicts]
        divisor = {"noise": 1 - t, "image": t, "velocity": torch.ones_like(t)}[predicts]
        return (prediction - target).square().mean((1, 2, 3)) / divide(divisor, predicts, least).square()

    return loss


for kind, divide, words in (
    ("plus", lambda d, predicts, least: d + least, "to the 1 of the velocity as well"),
    (
        "image",
        lambda d, predicts, least: d.clamp(min=least) if predicts == "image" else d,
        "Only the divisor of the image",
    ),
    (
        "noise",
        lambda d, predicts, least: d.clamp(min=least) if predicts == "noise" else d,
        "Only the divisor of the noise",
    ),
):
    wrong("velocity_loss", words)(named(f"velocity_loss_{kind}_slip", velocity_loss_over(divide)))


def two_streams(zero=(), results=False):
    def attention(image, text, keep):
        there = keep[:, None, :, None]
        text = [part * there if i in zero else part for i, part in enumerate(text)]
        q, k, v = (torch.cat(parts, 2) for parts in zip(image, text))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if not zero:
            patches = scores.shape[-1] - keep.shape[1]
            scores[..., patches:] = scores[..., patches:].masked_fill(~keep[:, None, None], -torch.inf)
        found = scores.softmax(-1) @ v
        first, second = found.split([image.shape[3], keep.shape[1]], 2)
        return first, second * there if results else second

    return attention


for kind, options, words in (
    ("all_zero", {"zero": (0, 1, 2)}, "Queries, keys and values of padding are set to zero"),
    ("keys_zero", {"zero": (1, 2)}, "Keys and values of padding are set to zero"),
    ("results_zero", {"results": True}, "The result for padding is set to zero"),
):
    wrong("two_stream_attention", words)(named(f"two_stream_{kind}_slip", two_streams(**options)))


@wrong("stream_update", "applied to its result")
def stream_update_modulated_slip(x, attended, vectors, w_in, w_out):
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (vectors[:, i : i + 1] for i in range(6))
    x = x + gate_1 * (attended * (1 + scale_1) + shift_1)
    hidden = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale_2) + shift_2
    return x + gate_2 * (F.gelu(hidden @ w_in, approximate="tanh") @ w_out)


@wrong("few_jumps", "down to the last time")
def few_jumps_to_the_last_slip(average, x_T, times):
    x, end = x_T, times[-1].expand(len(x_T))
    for t, length in zip(times[:-1], -times.diff()):
        x = x - length * average(x, t.expand(len(x)), end)
    return x


# ---- found by a third trial with fresh mistakes


def label_posterior_in(columns):
    def of_labels(x_t, alpha_bar, images, labels, num_classes):
        weights = posterior(x_t, alpha_bar, images)
        result = weights.new_zeros(len(x_t), num_classes)
        for column, weight in zip(columns(labels.tolist()), weights.T):
            result[:, column] += weight
        return result

    return of_labels


for kind, columns, words in (
    (
        "sorted",
        lambda y: [sorted(set(y)).index(label) for label in y],
        "numbered over the classes that occur",
    ),
    (
        "first_seen",
        lambda y: [list(dict.fromkeys(y)).index(label) for label in y],
        "in which the classes appear",
    ),
):
    wrong("label_posterior", words)(named(f"label_posterior_{kind}_slip", label_posterior_in(columns)))


@wrong("patchify", "lie H/p rows and W/p columns apart")
def patchify_every_h_slip(images, patch_size):
    p, (rows, columns) = patch_size, (side // patch_size for side in images.shape[2:])
    tokens = [images[:, :, i::rows, j::columns] for i in range(rows) for j in range(columns)]
    return torch.stack(
        [token.movedim(1, 3).reshape(len(images), p * p * images.shape[1]) for token in tokens], 1
    )


for kind, pattern, words in (
    ("rows_apart", "n c (p h) (w q) -> n (h w) (p q c)", "lie H/p rows apart"),
    ("columns_apart", "n c (h p) (q w) -> n (h w) (p q c)", "lie W/p columns apart"),
    ("grid_inside", "n c (h p) (w q) -> n (p q) (h w c)", "one pixel of each patch"),
):
    wrong("patchify", words)(
        named(f"patchify_{kind}_slip", lambda x, p, pattern=pattern: rearrange(x, pattern, p=p, q=p))
    )


@wrong("unpatchify", "rows of each patch are spread")
def unpatchify_rows_spread_slip(tokens, grid, patch_size):
    rows, columns = grid
    p = patch_size
    x = tokens.view(len(tokens), rows, columns, p, p, -1)
    return x.permute(0, 5, 3, 1, 2, 4).reshape(len(tokens), -1, p * rows, columns * p)


@wrong("unpatchify", "columns of each patch are spread")
def unpatchify_columns_spread_slip(tokens, grid, patch_size):
    rows, columns = grid
    p = patch_size
    x = tokens.view(len(tokens), rows, columns, p, p, -1)
    return x.permute(0, 5, 1, 3, 4, 2).reshape(len(tokens), -1, rows * p, p * columns)


@wrong("unpatchify", "right for square images, but not if")
def unpatchify_rows_for_columns_slip(tokens, grid, patch_size):
    images = torch.zeros(
        len(tokens), tokens.shape[2] // patch_size**2, *(n * patch_size for n in grid)
    ).double()
    for i in range(grid[0]):
        for j in range(grid[1]):
            patch = tokens[:, i * grid[0] + j].unflatten(1, (patch_size, patch_size, -1)).movedim(3, 1)
            top, left = i * patch_size, j * patch_size
            images[:, :, top : top + patch_size, left : left + patch_size] = patch
    return images


def waves_with(log, positions, dim, period=10000.0):
    i = torch.arange(dim // 2, dtype=torch.float64)
    angles = positions.double().view(-1, 1) * torch.exp(-log(period) * i / (dim // 2))
    return angles.sin(), angles.cos()


for kind, log, words in (
    ("log10", math.log10, "logarithm to the base 10"),
    ("no_log", float, "exp needs the logarithm of the period"),
):

    def sincos_1d_by(positions, dim, log=log):
        return torch.cat(waves_with(log, positions, dim), 1)

    def sincos_2d_by(grid, dim, log=log):
        rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
        return torch.cat([*waves_with(log, columns, dim // 2), *waves_with(log, rows, dim // 2)], 1)

    def shift_positions_by(codes, steps, log=log):
        sin, cos = waves_with(log, torch.tensor([steps]), codes.shape[1])
        turned = torch.complex(*codes.chunk(2, 1)[::-1]) * torch.complex(cos, sin)
        return torch.cat([turned.imag, turned.real], 1)

    def timestep_embedding_by(t, dim, max_period, log=log):
        return torch.cat(waves_with(log, t, dim, max_period)[::-1], 1)

    for made in (sincos_1d_by, sincos_2d_by, shift_positions_by, timestep_embedding_by):
        exercise = made.__name__.removesuffix("_by")
        wrong(exercise, words)(named(f"{exercise}_{kind}_slip", made))


@wrong("label_dropout", "large random numbers")
def label_dropout_large_slip(y, uniform, dropout_prob, num_classes, training):
    if training:
        y = torch.where(1 - uniform < dropout_prob, num_classes, y)
    return y


def label_dropout_share(whole, by_number):
    def dropout(y, uniform, dropout_prob, num_classes, training):
        labels = y.clone()
        if training:
            order = uniform.argsort() if by_number else torch.arange(len(y))
            labels[order[: whole(len(y) * dropout_prob)]] = num_classes
        return labels

    return dropout


for kind, whole, how in (("round", round, "rounded to the nearest"), ("ceil", math.ceil, "rounded up")):
    for order, words in (
        (True, f"share of the batch is dropped, {how}"),
        (False, f"a fixed share of it, {how}"),
    ):
        wrong("label_dropout", words)(
            named(f"label_dropout_{kind}_{order}_slip", label_dropout_share(whole, order))
        )


def heads_of(q, k, v, weights=lambda scores: scores.softmax(-1), transposed=lambda k: k.transpose(-1, -2)):
    return torch.einsum("nhts,nhsd->nhtd", weights(q @ transposed(k) / math.sqrt(q.shape[-1])), v)


def many_heads(attention):
    def multi_head(q, k, v, num_heads):
        q, k, v = (rearrange(x, "n t (h d) -> n h t d", h=num_heads) for x in (q, k, v))
        return rearrange(attention(q, k, v), "n h t d -> n t (h d)")

    return multi_head


def flat_keys(k):
    return k.reshape(*k.shape[:-2], k.shape[-1], k.shape[-2])


def on_all_heads(x, heads):
    return x.unsqueeze(1).repeat(1, heads, 1, 1)


for kind, options, words in (
    ("keys_reshaped", {"transposed": flat_keys}, "keys are reshaped"),
    (
        "scores_added",
        {"weights": lambda s: on_all_heads(s.sum(1).softmax(-1), s.shape[1])},
        "scores are added",
    ),
    (
        "scores_averaged",
        {"weights": lambda s: on_all_heads(s.mean(1).softmax(-1), s.shape[1])},
        "scores are averaged",
    ),
    (
        "weights_averaged",
        {"weights": lambda s: on_all_heads(s.softmax(-1).mean(1), s.shape[1])},
        "weights are averaged",
    ),
):

    def attention_by(q, k, v, options=options):
        return heads_of(q, k, v, **options)

    wrong("attention", words)(named(f"attention_{kind}_slip", attention_by))
    wrong("multi_head", words)(named(f"multi_head_{kind}_slip", many_heads(attention_by)))


def add_scores_ordered(of_queries, of_keys, factor):
    def add_scores(q1, k1, q2, k2):
        q = rearrange([q1, q2], f"two n h t d -> n h t ({of_queries})")
        k = rearrange([k1, k2], f"two n h t d -> n h t ({of_keys})")
        return factor * q, k

    return add_scores


for of_queries, of_keys, names in (
    ("two d", "d two", ("keys", "queries")),
    ("d two", "two d", ("queries", "keys")),
):
    for kind, factor, end in (
        ("in_turn", math.sqrt(2), "."),
        ("in_turn_small", 1.0, ", and the scores are too small"),
    ):
        words = "In the {} the channels of both heads alternate, in the {} they stand side by side: channels that do not "
        words = words.format(*names) + f"belong together are multiplied{end}"
        made = named(f"add_scores_{names[0]}_{kind}_slip", add_scores_ordered(of_queries, of_keys, factor))
        wrong("add_scores", words)(made)


def label_mask_without(*pairs):
    def label_mask(T):
        t, y, image = [T], [T + 1], list(range(T))
        mask = torch.ones(T + 2, T + 2, dtype=torch.bool)
        for queries, keys in pairs:
            for query in {"t": t, "y": y, "image": image}[queries]:
                mask[query, {"t": t, "y": y, "image": image}[keys]] = False
        return mask

    return label_mask


for kind, pairs, words in (
    ("t_turned", (("image", "y"), ("y", "t")), "t and y are exchanged"),
    ("image_turned", (("t", "y"), ("y", "image")), "image and y are exchanged"),
    ("both_ways", (("image", "y"), ("y", "image")), "Image and y are kept from each other"),
):
    wrong("label_mask", words)(named(f"label_mask_{kind}_slip", label_mask_without(*pairs)))


@wrong("cross_attention", "values are made from the keys")
def cross_attention_values_of_keys_slip(x, context, w_q, w_k, w_v):
    queries, context = x @ w_q, context @ w_k
    weights = (queries @ context.mT / math.sqrt(x.shape[2])).softmax(2)
    return weights @ (context @ w_v)


@wrong("cross_attention", "keys are made from the values")
def cross_attention_keys_of_values_slip(x, context, w_q, w_k, w_v):
    context = context @ w_v
    weights = (x @ w_q @ (context @ w_k).mT / math.sqrt(x.shape[2])).softmax(2)
    return weights @ context


@wrong("cross_attention", "keys are reshaped")
def cross_attention_keys_reshaped_slip(x, context, w_q, w_k, w_v):
    scores = x @ w_q @ (context @ w_k).reshape(len(x), x.shape[2], -1)
    return (scores / math.sqrt(x.shape[2])).softmax(2) @ context @ w_v


@wrong("padded_attention", "keys are reshaped")
def padded_attention_keys_reshaped_slip(q, k, v, lengths):
    scores = torch.bmm(q, k.reshape(len(k), k.shape[2], k.shape[1])) / math.sqrt(q.shape[2])
    padding = torch.arange(k.shape[1])[None, None] >= lengths[:, None, None]
    return scores.masked_fill(padding, -torch.inf).softmax(2) @ v


@wrong("modulate", "1 is added to the result")
def modulate_one_at_the_end_slip(x, shift, scale):
    return x * scale + shift + 1


@wrong("adaln_fields", "Images and fields are mixed")
def adaln_fields_mixed_slip(c, weight, bias):
    numbers = F.linear(c * c.sigmoid(), weight, bias)
    fields = numbers.view(len(bias) // c.shape[1], c.shape[0], c.shape[1])
    return [field[:, None] for field in fields]


@wrong("absorb", "1 is added to the scaled weights")
def absorb_one_at_the_end_slip(weight, bias, shift, scale):
    return 1 + scale * weight, torch.einsum("kd,nd->nk", weight, shift[:, 0]) + bias


@wrong("absorb", "Each image's weight is made")
def absorb_weight_kept_slip(weight, bias, shift, scale):
    weights, biases, scaled = [], [], weight
    for add, factor in zip(shift[:, 0], scale[:, 0]):
        scaled = scaled + scaled * factor
        weights.append(scaled)
        biases.append(bias + (weight * add).sum(1))
    return torch.stack(weights), torch.stack(biases)


@wrong("absorb", "Each image's bias is made")
def absorb_bias_kept_slip(weight, bias, shift, scale):
    weights, biases = [], []
    for add, factor in zip(shift[:, 0], scale[:, 0]):
        weights.append(weight * (1 + factor))
        bias = bias + weight @ add
        biases.append(bias)
    return torch.stack(weights), torch.stack(biases)


@wrong("absorb", "Each image's layer is made")
def absorb_layer_kept_slip(weight, bias, shift, scale):
    layers = []
    for n in range(len(scale)):
        bias = (weight * shift[n]).sum(1) + bias
        weight = weight + weight * scale[n]
        layers.append((weight, bias))
    return tuple(map(torch.stack, zip(*layers)))


# ---- found by a fourth trial with fresh mistakes


@wrong("to_model_range", "The middle is taken as 128, and half of the range as 127")
def to_model_range_128_and_127_slip(images):
    return (images.permute(0, 3, 1, 2).float() - 128) / 127


@wrong("to_model_range", "the distance from it is divided by 127")
def to_model_range_centered_over_127_slip(images):
    return (images.permute(0, 3, 1, 2).double() - 127.5) / 127


@wrong("to_model_range", "Half of the range is right, but the middle is taken as 128")
def to_model_range_middle_128_slip(images):
    return (images.permute(0, 3, 1, 2).double() - 128) / 127.5


@wrong("to_model_range", "Half of the range is right, but the middle is taken as 127")
def to_model_range_middle_127_slip(images):
    return (images.permute(0, 3, 1, 2).double() - 127) / 127.5


def gaussian_logits(x_t, alpha_bar, images, distance=lambda squares: squares.sum((2, 3, 4))):
    squares = (x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images) ** 2
    return -distance(squares) / (2 - 2 * alpha_bar)[:, None]


def exponentials_guarded(x_t, alpha_bar, images, least):
    odds = gaussian_logits(x_t, alpha_bar, images).exp()
    return odds / (odds.sum(1, keepdim=True) + least)


def exponentials_less_the_mean(x_t, alpha_bar, images):
    logits = gaussian_logits(x_t, alpha_bar, images)
    odds = (logits - logits.mean(1, keepdim=True)).exp()
    return odds / odds.sum(1, keepdim=True)


def class_sums(weights, labels, num_classes):
    return weights @ F.one_hot(labels, num_classes).to(weights)


def channel_mean(squares):
    return squares.mean(2).flatten(2).sum(2)


def plane_mean(squares):
    return squares.sum(2).flatten(2).mean(2)


@wrong("posterior_weights", "averaged over the channels")
def posterior_weights_channel_mean_slip(x_t, alpha_bar, images):
    return gaussian_logits(x_t, alpha_bar, images, channel_mean).softmax(1)


@wrong("posterior_weights", "averaged over the places of the image")
def posterior_weights_plane_mean_slip(x_t, alpha_bar, images):
    return gaussian_logits(x_t, alpha_bar, images, plane_mean).softmax(1)


@wrong("posterior_weights", "It is right until there is little noise")
def posterior_weights_underflow_slip(x_t, alpha_bar, images):
    return exponentials_guarded(x_t, alpha_bar, images, 1e-12)


@wrong("posterior_weights", "It is right until there is little noise")
def posterior_weights_clamped_sum_slip(x_t, alpha_bar, images):
    odds = gaussian_logits(x_t, alpha_bar, images).exp()
    return odds / odds.sum(1, keepdim=True).clamp(min=1e-20)


@wrong("posterior_weights", "It is right until there is little noise")
def posterior_weights_less_the_mean_slip(x_t, alpha_bar, images):
    return exponentials_less_the_mean(x_t, alpha_bar, images)


@wrong("posterior_weights", "A small number is added to the sum of the exponentials")
def posterior_weights_guarded_slip(x_t, alpha_bar, images):
    return exponentials_guarded(x_t, alpha_bar, images, 1e-8)


@wrong("label_posterior", "averaged over the channels")
def label_posterior_channel_mean_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = gaussian_logits(x_t, alpha_bar, images, channel_mean).softmax(1)
    return class_sums(weights, labels, num_classes)


@wrong("label_posterior", "averaged over the places of the image")
def label_posterior_plane_mean_slip(x_t, alpha_bar, images, labels, num_classes):
    weights = gaussian_logits(x_t, alpha_bar, images, plane_mean).softmax(1)
    return class_sums(weights, labels, num_classes)


@wrong("label_posterior", "It is right until there is little noise")
def label_posterior_underflow_slip(x_t, alpha_bar, images, labels, num_classes):
    return class_sums(exponentials_guarded(x_t, alpha_bar, images, 1e-10), labels, num_classes)


@wrong("label_posterior", "exponentials round to 0 or become infinite, and 0 / 0 is nan")
def label_posterior_less_the_mean_slip(x_t, alpha_bar, images, labels, num_classes):
    return class_sums(exponentials_less_the_mean(x_t, alpha_bar, images), labels, num_classes)


@wrong("label_posterior", "A small number is added to the sum of the exponentials")
def label_posterior_guarded_slip(x_t, alpha_bar, images, labels, num_classes):
    return class_sums(exponentials_guarded(x_t, alpha_bar, images, 1e-8), labels, num_classes)


@wrong("sincos_1d", "The cosines go on counting where the sines stop")
def sincos_1d_cosines_go_on_slip(positions, dim):
    angles = positions.double()[:, None] / 10000 ** (torch.arange(dim).double() / (dim // 2))
    return torch.hstack([angles[:, : dim // 2].sin(), angles[:, dim // 2 :].cos()])


@wrong("sincos_1d", "The frequencies of the cosines lie between those of the sines")
def sincos_1d_cosines_between_slip(positions, dim):
    angles = positions.double()[:, None] / 10000 ** (torch.arange(dim).double() / dim)
    return torch.hstack([angles[:, ::2].sin(), angles[:, 1::2].cos()])


@wrong("sincos_1d", "The cosines are counted from 1, and the sines from 0")
def sincos_1d_cosines_from_one_slip(positions, dim):
    periods = 10000 ** (torch.arange(dim // 2 + 1).double() * 2 / dim)
    angles = positions.double()[:, None] / periods
    return torch.hstack([angles[:, :-1].sin(), angles[:, 1:].cos()])


@wrong("timestep_embedding", "The sines go on counting where the cosines stop")
def timestep_embedding_sines_go_on_slip(t, dim, max_period=10000.0):
    angles = t.double()[:, None] / max_period ** (torch.arange(dim).double() / (dim // 2))
    return torch.hstack([angles[:, : dim // 2].cos(), angles[:, dim // 2 :].sin()])


def nearest_row(rows, table):
    return (rows[:, None] - table).square().sum(2).argmin(1)


@wrong("split_condition", "The timestep is searched first, with the mean label taken away")
def split_condition_less_mean_label_slip(c, t_table, y_table):
    t = nearest_row(c - y_table.mean(0), t_table)
    return t, nearest_row(c - t_table[t], y_table)


@wrong("split_condition", "The label is searched first, with the mean timestep taken away")
def split_condition_less_mean_timestep_slip(c, t_table, y_table):
    y = nearest_row(c - t_table.mean(0), y_table)
    return nearest_row(c - y_table[y], t_table), y


@wrong("split_condition", "with the mean of the other taken away")
def split_condition_less_both_means_slip(c, t_table, y_table):
    return nearest_row(c - y_table.mean(0), t_table), nearest_row(c - t_table.mean(0), y_table)


@wrong("padded_attention", "the mask is True at the padding")
def padded_attention_mask_of_padding_slip(q, k, v, lengths):
    padding = torch.arange(k.shape[1])[None, None] >= lengths[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, padding.expand(len(q), q.shape[1], k.shape[1]))


@wrong("padded_attention", "the words get scores far below those of the padding")
def padded_attention_words_lowered_slip(q, k, v, lengths):
    scores = torch.einsum("ntd,nsd->nts", q, k) / math.sqrt(q.shape[2])
    words = torch.arange(k.shape[1])[None, None] < lengths[:, None, None]
    return scores.masked_fill(words, -1e9).softmax(2) @ v


@wrong("block_macs", "Both sides of a matrix of the MLP are as wide as the hidden layer")
def block_macs_hidden_squared_slip(tokens, width, mlp_ratio):
    hidden = mlp_ratio * width
    weights = 4 * width**2 + hidden**2 + hidden * width
    return tokens * weights + 2 * tokens**2 * width + 6 * width**2


@wrong("block_macs", "The pairs of a token with itself are left out")
def block_macs_not_itself_slip(tokens, width, mlp_ratio):
    weights = (4 + 2 * mlp_ratio) * width**2
    return tokens * weights + 2 * (tokens**2 - tokens) * width + 6 * width**2


@wrong("block_macs", "Each two tokens are counted once, and no token with itself")
def block_macs_combinations_slip(tokens, width, mlp_ratio):
    weights = (4 + 2 * mlp_ratio) * width**2
    pairs = torch.tensor([math.comb(T, 2) for T in tokens.tolist()])
    return tokens * weights + 2 * pairs * width + 6 * width**2


@wrong("q_sample", "It is one step early, and t = 0 has the entry of t = 0")
def q_sample_early_clamped_slip(x0, t, noise, alphas_cumprod):
    bar = col(alphas_cumprod, torch.clamp(t - 1, min=0))
    return bar**0.5 * x0 + (1 - bar) ** 0.5 * noise


@wrong("q_sample", "It is one step early, and t = 0 adds no noise")
def q_sample_early_with_one_slip(x0, t, noise, alphas_cumprod):
    before = F.pad(alphas_cumprod, (1, 0), value=1.0)
    bar = col(before, t)
    return bar**0.5 * x0 + (1 - bar) ** 0.5 * noise


@wrong("q_posterior", "At t = 0 the mean is that of t = 1, too")
def q_posterior_clamped_slip(x0, x_t, t, betas):
    t = torch.where(t == 0, 1, t)
    bar = torch.cumprod(1 - betas, 0)
    beta, now, before = col(betas, t), col(bar, t), col(bar, t - 1)
    mean = before**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - before) * x_t
    return mean / (1 - now), torch.log(beta * (1 - before) / (1 - now))


@wrong("respaced_betas", "It is right if the first kept step is 0")
def respaced_betas_first_of_table_slip(alphas_cumprod, kept):
    bar = alphas_cumprod[torch.tensor(kept)]
    return torch.cat([1 - alphas_cumprod[:1], 1 - bar[1:] / bar[:-1]])


@wrong("respaced_betas", "It is right if the first kept step is 0")
def respaced_betas_first_is_old_slip(alphas_cumprod, kept):
    before = [kept[0] - 1, *kept[:-1]]
    return torch.stack(
        [1 - alphas_cumprod[k] / (alphas_cumprod[b] if b >= 0 else 1) for b, k in zip(before, kept)]
    )


def step_with(total, model, optimizer, scheduler, losses):
    optimizer.zero_grad()
    loss = total(losses)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return float(loss)


@wrong("training_step", "All entries of the losses are added up")
def training_step_all_entries_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    losses = diffusion.training_losses(model, x0, t, y, noise)
    return step_with(
        lambda each: torch.stack(list(each.values())).sum(0).mean(), model, optimizer, scheduler, losses
    )


@wrong("training_step", "The squared error is added once more")
def training_step_error_again_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    losses = diffusion.training_losses(model, x0, t, y, noise)
    return step_with(
        lambda each: each["loss"].mean() + each["mse"].mean(), model, optimizer, scheduler, losses
    )


@wrong("training_step", "The bound is added once more")
def training_step_bound_again_slip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    losses = diffusion.training_losses(model, x0, t, y, noise)
    return step_with(
        lambda each: each["loss"].mean() + each["vb"].mean(), model, optimizer, scheduler, losses
    )


@wrong("mean_ablation", "The mean is that of the layer applied to the model's input")
def mean_ablation_outside_slip(model, layer, x):
    out = layer(x)
    mean = out.mean(dim=0).expand(out.shape)
    handle = layer.register_forward_hook(lambda *_: mean)
    try:
        return model(x)
    finally:
        handle.remove()


def rms_scaled(x, scale, eps):
    return F.rms_norm(x, x.shape[-1:], scale, eps)


@wrong("normalized_scores", "The keys have the scale of the queries")
def normalized_scores_scale_of_queries_slip(q, k, q_scale, k_scale, eps):
    queries, keys = (rms_scaled(x, q_scale, eps) for x in (q, k))
    return queries @ keys.transpose(2, 3) / math.sqrt(q.shape[3])


@wrong("normalized_scores", "The queries have the scale of the keys")
def normalized_scores_scale_of_keys_slip(q, k, q_scale, k_scale, eps):
    queries, keys = (rms_scaled(x, k_scale, eps) for x in (q, k))
    return queries @ keys.transpose(2, 3) / math.sqrt(q.shape[3])


def by_velocity(prediction, x_t, t, predicts, noise, image, along):
    """The velocity by a formula, and what is missing along it from x_t, or by adding it to the prediction."""
    t = t[:, None, None, None]
    v = {"noise": noise, "image": image, "velocity": lambda z, x, t: z}[predicts](prediction, x_t, t)
    if predicts == "velocity":
        return x_t - t * v, x_t + (1 - t) * v, v
    if predicts == "noise":
        return (x_t - t * v if along else prediction - v), prediction, v
    return prediction, (x_t + (1 - t) * v if along else prediction + v), v


def true_from_noise(z, x, t):
    return (z - x) / (1 - t)


def true_from_image(z, x, t):
    return (x - z) / t


@wrong("three_predictions", "is not divided by t, the part of the way from the image to x_t")
def three_predictions_image_undivided_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, true_from_noise, lambda z, x, t: x - z, False)


@wrong("three_predictions", "is not divided by t, the part of the way from the image to x_t")
def three_predictions_image_undivided_along_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, true_from_noise, lambda z, x, t: x - z, True)


@wrong("three_predictions", "is not divided by 1 - t, the part of the way from x_t to the noise")
def three_predictions_noise_undivided_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, lambda z, x, t: z - x, true_from_image, False)


@wrong("three_predictions", "is not divided by 1 - t, the part of the way from x_t to the noise")
def three_predictions_noise_undivided_along_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, lambda z, x, t: z - x, true_from_image, True)


@wrong("three_predictions", "The velocity of a predicted image has the wrong sign")
def three_predictions_image_sign_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, true_from_noise, lambda z, x, t: (z - x) / t, False)


@wrong("three_predictions", "The velocity of a predicted image has the wrong sign")
def three_predictions_image_sign_along_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, true_from_noise, lambda z, x, t: (z - x) / t, True)


@wrong("three_predictions", "The velocity of a predicted noise has the wrong sign")
def three_predictions_noise_sign_slip(prediction, x_t, t, predicts):
    return by_velocity(
        prediction, x_t, t, predicts, lambda z, x, t: (x - z) / (1 - t), true_from_image, False
    )


@wrong("three_predictions", "The velocity of a predicted noise has the wrong sign")
def three_predictions_noise_sign_along_slip(prediction, x_t, t, predicts):
    return by_velocity(prediction, x_t, t, predicts, lambda z, x, t: (x - z) / (1 - t), true_from_image, True)


# ---- found by a fifth trial, of unusual mistakes


@wrong("guided_output", "The channels alternate")
def guided_output_interleaved_slip(cond, uncond, cfg_scale):
    channels = cond.shape[1] // 2
    out = torch.empty_like(cond)
    out[:, 0::2] = uncond[:, :channels] + cfg_scale * (cond - uncond)[:, :channels]
    out[:, 1::2] = cond[:, channels:]
    return out


@wrong("timestep_embedding", "frequencies need fractions")
def timestep_embedding_integer_frequencies_slip(t, dim, max_period):
    frequencies = (max_period ** (-torch.arange(dim // 2) / (dim // 2))).to(t)
    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


# ---- found by a sixth trial, of lessons 14 to 35


def wide(t):
    """One number for each image, (N, 1, 1, 1)."""
    return t[:, None, None, None]


def levels(diffusion, t):
    """Signal at t and at the step before, (N, 1, 1, 1) each."""
    return wide(diffusion.alphas_cumprod[t]), wide(diffusion.alphas_cumprod_prev[t])


@wrong("discretized_gaussian_nll", "above 0 and below 1e-12")
def discretized_gaussian_nll_added_slip(x, mean, log_scale, bins):
    return -(bin_probability(x, mean, log_scale, bins) + 1e-12).log()


@wrong("discretized_gaussian_nll", "above 0 and below 1e-12")
def discretized_gaussian_nll_zeros_slip(x, mean, log_scale, bins):
    p = bin_probability(x, mean, log_scale, bins)
    return -torch.where(p == 0, 1e-12, p).log()


def bin_probability(x, mean, log_scale, bins):
    half, scale = 1 / (bins - 1), log_scale.exp()
    upper, lower = (torch.special.ndtr((x - mean + side * half) / scale) for side in (1, -1))
    return torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))


@wrong("from_velocity", "followed as on flow matching's")
def from_velocity_flow_slip(x_t, t, v, alphas_cumprod):
    signal, noise = wide(alphas_cumprod[t]).sqrt(), (1 - wide(alphas_cumprod[t])).sqrt()
    x0 = x_t - noise * v
    return x0, -((x_t - signal * x0) / noise) / noise


@wrong("ddim_step", "made positive")
def ddim_step_ratio_slip(diffusion, prediction, x_t, t, noise, eta):
    after, before = levels(diffusion, t)
    sigma = eta * ((1 - before) / (1 - after)).sqrt() * (1 - before / after).abs().sqrt()
    eps = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * eps + sigma * noise


@wrong("ddim_step", "noisy image x_t is scaled")
def ddim_step_noisy_slip(diffusion, prediction, x_t, t, noise, eta):
    after, before = levels(diffusion, t)
    sigma = eta * ((1 - before) / (1 - after)).sqrt() * (1 - after / before).sqrt()
    eps = (x_t - after.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * x_t + (1 - before - sigma**2).clamp(min=0).sqrt() * eps + sigma * noise


@wrong("ddim_step", "has the root of the step before")
def ddim_step_other_root_slip(diffusion, prediction, x_t, t, noise, eta):
    after, before = levels(diffusion, t)
    sigma = eta * ((1 - before) / (1 - after)).sqrt() * (1 - after / before).sqrt()
    eps = (x_t - before.sqrt() * prediction.x0) / (1 - after).sqrt()
    return before.sqrt() * prediction.x0 + (1 - before - sigma**2).clamp(min=0).sqrt() * eps + sigma * noise


@wrong("second_order_step", "wrong way around, in both factors")
def second_order_step_both_factors_slip(x, x0, last_x0, before, now, after):
    step, last = torch.logit(after) - torch.logit(now), torch.logit(now) - torch.logit(before)
    middle = x0 + step / (2 * last) * (x0 - last_x0)
    ratio = (1 - now).sqrt() / (1 - after).sqrt()
    return ratio * x + (after.sqrt() - ratio * now.sqrt()) * middle


@wrong("generate", "label and timestep in the wrong order")
@torch.no_grad()
def generate_label_first_slip(step, decode, z, y, num_steps, scale, shift):
    for t in reversed(range(num_steps)):
        z = step(z, y, torch.full((len(z),), t))
    return decode(z / scale + shift).clamp(-1, 1)


@wrong("generate", "divided by their largest number")
@torch.no_grad()
def generate_largest_slip(step, decode, z, y, num_steps, scale, shift):
    for t in reversed(range(num_steps)):
        z = step(z, torch.full((len(z),), t), y)
    images = decode(z / scale + shift)
    return images / images.abs().max()


@wrong("paired_interval", "lower median")
def paired_interval_lower_median_slip(first, second, level):
    import scipy.stats

    d = second - first
    half = scipy.stats.t.ppf((1 + level) / 2, len(d) - 1) * d.std() / len(d) ** 0.5
    return d.median(), d.median() - half, d.median() + half


@wrong("mean_ablation", "mean is that of the layer's input")
def mean_ablation_of_input_slip(model, layer, x):
    with layer.register_forward_hook(lambda module, args, out: args[0].mean(0, keepdim=True).expand_as(out)):
        return model(x)


@wrong("mean_ablation", "what was changed stays")
def mean_ablation_forward_slip(model, layer, x):
    own = layer.forward
    layer.forward = lambda *args: own(*args).mean(0, keepdim=True).expand(len(x), -1, -1)
    result = model(x)
    layer.forward = own
    return result


@wrong("flow_pair", "shifted as one")
def flow_pair_logit_as_time_slip(x0, noise, logit, shift):
    t = shift * logit / (1 + (shift - 1) * logit)
    return (1 - wide(t)) * x0 + wide(t) * noise, noise - x0, 1000 * t


@wrong("flow_pair", "except for rounding")
def flow_pair_float32_shift_slip(x0, noise, logit, shift):
    t = torch.sigmoid(logit + torch.log(torch.tensor(shift)))
    return (1 - wide(t)) * x0 + wide(t) * noise, noise - x0, 1000 * t


@wrong("axial_rotation", "or the 2 of the exponent is missing")
def axial_rotation_no_two_slip(x, rows, columns, theta):
    half, token = x.shape[-1] // 2, torch.arange(rows * columns)
    omega = theta ** (-torch.arange(half // 2).double() / half)
    angles = torch.cat([torch.outer(token // columns, omega), torch.outer(token % columns, omega)], 1)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


@wrong("normalized_scores", "except for rounding")
def normalized_scores_float32_root_slip(q, k, q_scale, k_scale, eps):
    q, k = (x / (x.square().mean(-1, keepdim=True) + eps).sqrt() for x in (q, k))
    return (q * q_scale) @ (k * k_scale).mT / torch.sqrt(torch.tensor(q.shape[-1]))


def by_weights(signal, noise):
    def convert(prediction, x_t, t, predicts):
        a, b = signal(wide(t)), noise(wide(t))
        x0, eps = prediction, prediction
        if predicts == "noise":
            x0 = (x_t - b * eps) / a
        elif predicts == "image":
            eps = (x_t - a * x0) / b
        else:
            x0, eps = a * x_t - b * prediction, b * x_t + a * prediction
        return x0, eps, eps - x0

    return convert


@wrong("three_predictions", "converted as in DDPM, with roots")
def three_predictions_roots_slip(prediction, x_t, t, predicts):
    return by_weights(lambda t: (1 - t).sqrt(), torch.sqrt)(prediction, x_t, t, predicts)


@wrong("three_predictions", "Image and noise are converted as on a circle")
def three_predictions_circle_slip(prediction, x_t, t, predicts):
    return by_weights(lambda t: (1 - t * t).sqrt(), lambda t: t)(prediction, x_t, t, predicts)


def by_names(noise, image):
    def convert(prediction, x_t, t, predicts):
        t = wide(t)
        if predicts == noise:
            x0, eps = (x_t - t * prediction) / (1 - t), prediction
        elif predicts == image:
            x0, eps = prediction, (x_t - (1 - t) * prediction) / t
        else:
            x0, eps = x_t - t * prediction, x_t + (1 - t) * prediction
        return x0, eps, eps - x0

    return convert


@wrong("three_predictions", "`predicts` is 'image'")
def three_predictions_x0_slip(prediction, x_t, t, predicts):
    return by_names("noise", "x0")(prediction, x_t, t, predicts)


@wrong("three_predictions", "`predicts` is 'noise'")
def three_predictions_eps_slip(prediction, x_t, t, predicts):
    return by_names("eps", "image")(prediction, x_t, t, predicts)


@wrong("stream_update", "eps of the layer norm is 1e-5")
def stream_update_eps_slip(x, attended, vectors, w_in, w_out):
    _, _, gate_attention, shift, scale, gate = vectors[:, :, None].unbind(1)
    x = x + gate_attention * attended
    inside = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
    return x + gate * (F.gelu(inside @ w_in, approximate="tanh") @ w_out)


@wrong("cfg_zero_star", "square of a sum")
def cfg_zero_star_squared_sum_slip(cond, uncond, cfg_scale):
    best = (cond * uncond).sum((1, 2, 3), keepdim=True) / uncond.sum((1, 2, 3), keepdim=True) ** 2
    return best * uncond + cfg_scale * (cond - best * uncond)


def jumps_by_index(average, x, times, first, second):
    for i in range(len(times)):
        t, r = times[i + first], times[i + second]
        x = x - (t - r) * average(x, t.expand(len(x)), r.expand(len(x)))
    return x


@wrong("few_jumps", "index -1 is the last")
def few_jumps_wraps_slip(average, x_T, times):
    return jumps_by_index(average, x_T, times, -1, 0)


@wrong("few_jumps", "t and r are exchanged")
def few_jumps_wraps_upward_slip(average, x_T, times):
    return jumps_by_index(average, x_T, times, 0, -1)


@wrong("few_jumps", "average takes t of shape (N,)")
def few_jumps_one_time_slip(average, x_T, times):
    for t, r in zip(times[:-1], times[1:]):
        x_T = x_T - (t - r) * average(x_T, t, r)
    return x_T
