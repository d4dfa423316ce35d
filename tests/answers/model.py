"""Answers to the exercises of lessons 12 and 13."""

import torch
from einops import rearrange

from dit_nb.patchify import unpatchify

from . import right, wrong

# ---- dit_forward


@right("dit_forward")
def dit_forward_library(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    x = parts.x_embedder(x) + parts.pos_embed
    for block in parts.blocks:
        x = block(x, c)
    x = unpatchify(parts.final_layer(x, c), parts.grid, parts.patch_size)
    return x.chunk(2, dim=1)


@right("dit_forward")
def dit_forward_by_hand(parts, x, t, y):
    (n, channels, height, width), p = x.shape, parts.patch_size
    c = parts.y_embedder(y).add(parts.t_embedder(t))
    tokens = torch.add(parts.pos_embed, parts.x_embedder(x))
    for block in parts.blocks:
        tokens = block(tokens, c)
    patches = parts.final_layer(tokens, c).view(n, *parts.grid, p, p, 2 * channels)
    image = patches.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, height, width)
    return image[:, :channels], image[:, channels:]


@right("dit_forward")
def dit_forward_einops(parts, x, t, y):
    c = sum((parts.t_embedder(t), parts.y_embedder(y)))
    hidden = parts.x_embedder(x) + parts.pos_embed
    for i in range(len(parts.blocks)):
        hidden = parts.blocks[i](hidden, c)
    out, p = parts.final_layer(hidden, c), parts.patch_size
    both = rearrange(out, "n (h w) (p q k c) -> k n c (h p) (w q)", h=parts.grid[0], p=p, q=p, k=2)
    return both[0], both[1]


def _start(parts, x, t, y):
    return parts.x_embedder(x) + parts.pos_embed, parts.t_embedder(t) + parts.y_embedder(y)


def _end(parts, x, c):
    return unpatchify(parts.final_layer(x, c), parts.grid, parts.patch_size).chunk(2, 1)


@wrong("dit_forward", "The positions are missing")
def dit_forward_no_positions(parts, x, t, y):
    _, c = _start(parts, x, t, y)
    x = parts.x_embedder(x)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "before every block")
def dit_forward_positions_in_the_loop(parts, x, t, y):
    _, c = _start(parts, x, t, y)
    x = parts.x_embedder(x)
    for block in parts.blocks:
        x = block(x + parts.pos_embed, c)
    return _end(parts, x, c)


@wrong("dit_forward", "added after the blocks")
def dit_forward_positions_last(parts, x, t, y):
    _, c = _start(parts, x, t, y)
    x = parts.x_embedder(x)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x + parts.pos_embed, c)


@wrong("dit_forward", "The label is not used")
def dit_forward_without_label(parts, x, t, y):
    x, _ = _start(parts, x, t, y)
    c = parts.t_embedder(t)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "The timestep is not used")
def dit_forward_without_timestep(parts, x, t, y):
    x, _ = _start(parts, x, t, y)
    c = parts.y_embedder(y)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "are multiplied")
def dit_forward_product(parts, x, t, y):
    x, _ = _start(parts, x, t, y)
    c = parts.t_embedder(t) * parts.y_embedder(y)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "are averaged")
def dit_forward_mean(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        x = block(x, c / 2)
    return _end(parts, x, c / 2)


@wrong("dit_forward", "divided by 1000")
def dit_forward_small_timesteps(parts, x, t, y):
    x, _ = _start(parts, x, t, y)
    c = parts.t_embedder(t / 1000) + parts.y_embedder(y)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "The condition is added to the tokens")
def dit_forward_condition_in_the_stream(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    x = x + c.unsqueeze(1)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "but never moved")
def dit_forward_view_only(parts, x, t, y):
    (n, _, height, width), (tokens, c) = x.shape, _start(parts, x, t, y)
    for block in parts.blocks:
        tokens = block(tokens, c)
    return parts.final_layer(tokens, c).view(n, -1, height, width).chunk(2, 1)


@wrong("dit_forward", "The grid is turned around")
def dit_forward_grid_exchanged(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        x = block(x, c)
    (h, w), p = parts.grid, parts.patch_size
    return unpatchify(parts.final_layer(x, c), (w, h), p).chunk(2, 1)


@wrong("dit_forward", "The noise is returned twice")
def dit_forward_noise_twice(parts, x, t, y):
    eps, _ = dit_forward_library(parts, x, t, y)
    return eps, eps


@wrong("dit_forward", "must have")
def dit_forward_split_of_the_batch(parts, x, t, y):
    return torch.cat(dit_forward_library(parts, x, t, y), 1).chunk(2, dim=3)


@wrong("dit_forward", "only the last block counts")
def dit_forward_parallel(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        out = block(x, c)
    return _end(parts, out, c)


@wrong("dit_forward", "Only the first block runs")
def dit_forward_early_return(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        x = block(x, c)
        return _end(parts, x, c)


@wrong("dit_forward", "The last block does not run")
def dit_forward_one_short(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for i in range(len(parts.blocks) - 1):
        x = parts.blocks[i](x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "No block runs")
def dit_forward_forgotten_assignment(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "reverse order")
def dit_forward_reversed(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in reversed(parts.blocks):
        x = block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "once more")
def dit_forward_second_residual(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        x = x + block(x, c)
    return _end(parts, x, c)


@wrong("dit_forward", "The final layer gets t alone")
def dit_forward_final_without_label(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, parts.t_embedder(t))


@wrong("dit_forward", "cut in half before they are an image")
def dit_forward_halves_of_tokens(parts, x, t, y):
    x, c = _start(parts, x, t, y)
    for block in parts.blocks:
        x = block(x, c)
    eps, v = parts.final_layer(x, c).chunk(2, dim=-1)
    return unpatchify(eps, parts.grid, parts.patch_size), unpatchify(v, parts.grid, parts.patch_size)


@wrong("dit_forward", "read channel by channel")
def dit_forward_channels_first(parts, x, t, y):
    tokens, c = _start(parts, x, t, y)
    for block in parts.blocks:
        tokens = block(tokens, c)
    (h, w), p = parts.grid, parts.patch_size
    out = parts.final_layer(tokens, c).view(len(x), h, w, -1, p, p).permute(0, 3, 1, 4, 2, 5)
    return out.reshape(len(x), -1, h * p, w * p).chunk(2, 1)


@wrong("dit_forward", "are exchanged")
def dit_forward_variance_first(parts, x, t, y):
    v, eps = dit_forward_library(parts, x, t, y)
    return eps, v


@wrong("dit_forward", "Every other channel")
def dit_forward_alternating(parts, x, t, y):
    image = torch.cat(dit_forward_library(parts, x, t, y), 1)
    return image[:, 0::2], image[:, 1::2]


@wrong("dit_forward", "must return 2 tensors")
def dit_forward_not_split(parts, x, t, y):
    return torch.cat(dit_forward_library(parts, x, t, y), 1)


@wrong("dit_forward", "stopped with")
def dit_forward_side_by_side(parts, x, t, y):
    x, _ = _start(parts, x, t, y)
    c = torch.cat([parts.t_embedder(t), parts.y_embedder(y)], dim=-1)
    for block in parts.blocks:
        x = block(x, c)
    return _end(parts, x, c)


def _forward_of(parts, x, c_blocks, c_final=None, positions=None, skip=0):
    tokens = parts.x_embedder(x) + (parts.pos_embed if positions is None else positions)
    for block in parts.blocks[skip:]:
        tokens = block(tokens, c_blocks)
    out = parts.final_layer(tokens, c_blocks if c_final is None else c_final)
    return unpatchify(out, parts.grid, parts.patch_size).chunk(2, dim=1)


def grown(parts, x, t, y, start, step):
    x = parts.x_embedder(x) + parts.pos_embed
    c = start
    for block in parts.blocks:
        c = c + step
        x = block(x, c)
    return unpatchify(parts.final_layer(x, c), parts.grid, parts.patch_size).chunk(2, dim=1)


@wrong("dit_forward", "The embedding of y is added again")
def dit_forward_grows_by_y(parts, x, t, y):
    return grown(parts, x, t, y, parts.t_embedder(t), parts.y_embedder(y))


@wrong("dit_forward", "The embedding of t is added again")
def dit_forward_grows_by_t(parts, x, t, y):
    return grown(parts, x, t, y, parts.y_embedder(y), parts.t_embedder(t))


@wrong("dit_forward", "Both embeddings are added to c again")
def dit_forward_grows_by_both(parts, x, t, y):
    return grown(parts, x, t, y, 0, parts.t_embedder(t) + parts.y_embedder(y))


@wrong("dit_forward", "The first block does not run")
def dit_forward_first_skipped(parts, x, t, y):
    return _forward_of(parts, x, parts.t_embedder(t) + parts.y_embedder(y), skip=1)


@wrong("dit_forward", "subtracted from the image")
def dit_forward_subtracts(parts, x, t, y):
    noise, values = _forward_of(parts, x, parts.t_embedder(t) + parts.y_embedder(y))
    return x - noise, values


@wrong("dit_forward", "added to the noise")
def dit_forward_adds_image(parts, x, t, y):
    noise, values = _forward_of(parts, x, parts.t_embedder(t) + parts.y_embedder(y))
    return noise + x, values


@wrong("dit_forward", "through an exponential")
def dit_forward_exp(parts, x, t, y):
    noise, values = _forward_of(parts, x, parts.t_embedder(t) + parts.y_embedder(y))
    return noise, torch.exp(values)


@wrong("dit_forward", "through a sigmoid")
def dit_forward_sigmoid(parts, x, t, y):
    noise, values = _forward_of(parts, x, parts.t_embedder(t) + parts.y_embedder(y))
    return noise, torch.sigmoid(values)


@wrong("dit_forward", "The final layer gets y alone")
def dit_forward_final_y(parts, x, t, y):
    label = parts.y_embedder(y)
    return _forward_of(parts, x, parts.t_embedder(t) + label, label)


@wrong("dit_forward", "The blocks get t alone")
def dit_forward_blocks_t(parts, x, t, y):
    time = parts.t_embedder(t)
    return _forward_of(parts, x, time, time + parts.y_embedder(y))


@wrong("dit_forward", "The blocks get y alone")
def dit_forward_blocks_y(parts, x, t, y):
    label = parts.y_embedder(y)
    return _forward_of(parts, x, label, parts.t_embedder(t) + label)


@wrong("dit_forward", "through a SiLU")
def dit_forward_silu(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    return _forward_of(parts, x, c * c.sigmoid())


@wrong("dit_forward", "The positions multiply")
def dit_forward_positions_multiply(parts, x, t, y):
    extra = parts.x_embedder(x) * (parts.pos_embed - 1)
    return _forward_of(parts, x, parts.t_embedder(t) + parts.y_embedder(y), positions=extra)


@wrong("dit_forward", "The first position is added")
def dit_forward_first_position(parts, x, t, y):
    c = parts.t_embedder(t) + parts.y_embedder(y)
    return _forward_of(parts, x, c, positions=parts.pos_embed[0, 0])


# ---- block_macs


@right("block_macs")
def block_macs_formula(tokens, width, mlp_ratio):
    weights = (4 + 2 * mlp_ratio) * width**2
    return weights * tokens + 2 * width * tokens**2 + 6 * width**2


@right("block_macs")
def block_macs_float(tokens, width, mlp_ratio):
    T, D, hidden = tokens.float(), width, int(mlp_ratio * width)
    attention = T * D * 3 * D + T * T * D + T * T * D + T * D * D
    return attention + T * D * hidden + T * hidden * D + D * 6 * D


@right("block_macs")
def block_macs_loop(tokens, width, mlp_ratio):
    def linear(rows, n_in, n_out):
        return rows * n_in * n_out

    return torch.stack(
        [
            sum(linear(T, width, width) for _ in range(4))
            + 2 * linear(T, width, T)
            + linear(T, width, mlp_ratio * width)
            + linear(T, mlp_ratio * width, width)
            + linear(1, width, 6 * width)
            for T in tokens
        ]
    )


def _linears(T, D, r):
    return 4 * D * D * T + 2 * r * D * D * T


@wrong("block_macs", "counted for every token")
def block_macs_modulation_per_token(tokens, width, mlp_ratio):
    return tokens * (4 + 2 * mlp_ratio + 6) * width**2 + 2 * width * tokens**2


@wrong("block_macs", "The modulation is missing")
def block_macs_plain_block(tokens, width, mlp_ratio):
    return _linears(tokens, width, mlp_ratio) + 2 * width * tokens**2


@wrong("block_macs", "four vectors, as in plain adaLN")
def block_macs_four_vectors(tokens, width, mlp_ratio):
    return block_macs_plain_block(tokens, width, mlp_ratio) + 4 * width**2


@wrong("block_macs", "it is a matrix from D numbers")
def block_macs_six_vectors(tokens, width, mlp_ratio):
    return block_macs_plain_block(tokens, width, mlp_ratio) + 6 * width


@wrong("block_macs", "it is mlp_ratio times D")
def block_macs_narrow_mlp(tokens, width, mlp_ratio):
    mlp = tokens * width * mlp_ratio + tokens * mlp_ratio * width
    return 4 * tokens * width**2 + mlp + 2 * width * tokens**2 + 6 * width**2


@wrong("block_macs", "These are the weights of the block")
def block_macs_weights_of_the_block(tokens, width, mlp_ratio):
    return torch.full_like(tokens, (4 + 2 * mlp_ratio + 6) * width**2)


@wrong("block_macs", "counted once; there are two products")
def block_macs_scores_only(tokens, width, mlp_ratio):
    return _linears(tokens, width, mlp_ratio) + width * tokens**2 + 6 * width**2


@wrong("block_macs", "The pairs of tokens are missing")
def block_macs_weights_only(tokens, width, mlp_ratio):
    return _linears(tokens, width, mlp_ratio) + 6 * width**2


@wrong("block_macs", "one for each of D channels")
def block_macs_pairs_without_width(tokens, width, mlp_ratio):
    return _linears(tokens, width, mlp_ratio) + 2 * tokens**2 + 6 * width**2


@wrong("block_macs", "as with a causal mask")
def block_macs_causal(tokens, width, mlp_ratio):
    return _linears(tokens, width, mlp_ratio) + 2 * width * (tokens * (tokens + 1) // 2) + 6 * width**2


@wrong("block_macs", "each token goes through them")
def block_macs_linears_once(tokens, width, mlp_ratio):
    return _linears(1, width, mlp_ratio) + 2 * width * tokens**2 + 6 * width**2


@wrong("block_macs", "The linear layers of attention are missing")
def block_macs_no_projections(tokens, width, mlp_ratio):
    return tokens * 2 * mlp_ratio * width**2 + 2 * width * tokens**2 + 6 * width**2


@wrong("block_macs", "The output projection")
def block_macs_three_matrices(tokens, width, mlp_ratio):
    return block_macs_formula(tokens, width, mlp_ratio) - width**2 * tokens


@wrong("block_macs", "they are three")
def block_macs_two_matrices(tokens, width, mlp_ratio):
    return block_macs_formula(tokens, width, mlp_ratio) - 2 * width**2 * tokens


@wrong("block_macs", "One layer of the MLP is missing")
def block_macs_one_mlp_layer(tokens, width, mlp_ratio):
    return block_macs_formula(tokens, width, mlp_ratio) - mlp_ratio * width**2 * tokens


@wrong("block_macs", "mlp_ratio is not used")
def block_macs_always_four(tokens, width, mlp_ratio):
    return 12 * width**2 * tokens + 2 * width * tokens**2 + 6 * width**2


@wrong("block_macs", "These are flops")
def block_macs_flops(tokens, width, mlp_ratio):
    return 2 * block_macs_formula(tokens, width, mlp_ratio)


@wrong("block_macs", "The biases are counted")
def block_macs_with_biases(tokens, width, mlp_ratio):
    biases = tokens * (3 * width + width + mlp_ratio * width + width) + 6 * width
    return block_macs_formula(tokens, width, mlp_ratio) + biases


@wrong("block_macs", "but must have")
def block_macs_of_one_image(tokens, width, mlp_ratio):
    return block_macs_formula(tokens[:1], width, mlp_ratio)


@wrong("block_macs", "The ratio is squared")
def block_macs_squared_ratio(tokens, width, mlp_ratio):
    mlp = 2 * (mlp_ratio * width) ** 2 * tokens
    return 4 * width**2 * tokens + 2 * width * tokens**2 + mlp + 6 * width**2


@wrong("block_macs", "cost D squared each")
def block_macs_wide_pairs(tokens, width, mlp_ratio):
    return (4 + 2 * mlp_ratio) * width**2 * tokens + 2 * (width * tokens) ** 2 + 6 * width**2


@wrong("block_macs", "as many pairs as its square")
def block_macs_linear_pairs(tokens, width, mlp_ratio):
    return (4 + 2 * mlp_ratio) * width**2 * tokens + 2 * width * tokens + 6 * width**2


@wrong("block_macs", "three vectors")
def block_macs_one_branch(tokens, width, mlp_ratio):
    return (4 + 2 * mlp_ratio) * width**2 * tokens + 2 * width * tokens**2 + 3 * width**2


@wrong("block_macs", "counted for both branches")
def block_macs_six_each(tokens, width, mlp_ratio):
    return (4 + 2 * mlp_ratio) * width**2 * tokens + 2 * width * tokens**2 + 2 * 6 * width**2


@wrong("block_macs", "has two vectors")
def block_macs_shift_and_scale(tokens, width, mlp_ratio):
    return (4 + 2 * mlp_ratio) * width**2 * tokens + 2 * width * tokens**2 + 2 * width**2


@wrong("block_macs", "the sum over all images")
def block_macs_total(tokens, width, mlp_ratio):
    return ((4 + 2 * mlp_ratio) * width**2 * tokens + 2 * width * tokens**2 + 6 * width**2).sum()
