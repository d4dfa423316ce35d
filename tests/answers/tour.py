"""Answers to the exercise of lesson 00."""

import torch

from . import right, wrong

# ---- two_labels


@right("two_labels")
def two_labels_cat(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2)


@right("two_labels")
def two_labels_assigned(model, x, t, top, bottom):
    out, below = model(x, t, top), model(x, t, bottom)
    height = out.size(-2)
    out[..., height // 2 :, :] = below[..., height // 2 :, :]
    return out


@right("two_labels")
def two_labels_mask(model, x, t, top, bottom):
    h = x.shape[-2]
    mask = (torch.arange(h) < h // 2).view(1, 1, h, 1).to(x.dtype)
    return mask * model(x, t, top) + (1 - mask) * model(x, t, bottom)


@right("two_labels")
def two_labels_one_call(model, x, t, top, bottom):
    both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([top, bottom]))
    a, b = both.chunk(2)
    return torch.where(torch.arange(x.shape[2])[:, None] < x.shape[2] / 2, a, b)


@right("two_labels")
def two_labels_loop(model, x, t, top, bottom):
    a, b = model(x, t, y=top), model(x, t, y=bottom)
    result = torch.zeros_like(a)
    for row in range(x.shape[2]):
        result[:, :, row] = a[:, :, row] if row <= x.shape[2] // 2 - 1 else b[:, :, row]
    return result


@right("two_labels")
def two_labels_chunks(model, x, t, top, bottom):
    upper, _ = model(x, t, top).chunk(2, dim=2)
    _, lower = model(x, t, bottom).chunk(2, dim=2)
    return torch.cat((upper, lower), dim=-2)


@wrong("two_labels", "halves are exchanged")
def two_labels_exchanged(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, bottom)[:, :, :half], model(x, t, top)[:, :, half:]], dim=2)


@wrong("two_labels", "halves are left and right")
def two_labels_left_right(model, x, t, top, bottom):
    half = x.shape[3] // 2
    return torch.cat([model(x, t, top)[:, :, :, :half], model(x, t, bottom)[:, :, :, half:]], dim=3)


@wrong("two_labels", "columns are cut at H/2")
def two_labels_last_axis(model, x, t, top, bottom):
    half, out = x.shape[2] // 2, model(x, t, top)
    out[..., half:] = model(x, t, bottom)[..., half:]
    return out


@wrong("two_labels", "channels are cut at H/2")
def two_labels_second_axis(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :half], model(x, t, bottom)[:, half:]], dim=1)


@wrong("two_labels", "images are cut at H/2")
def two_labels_first_axis(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:half], model(x, t, bottom)[half:]])


@wrong("two_labels", "first half of the images")
def two_labels_half_of_the_batch(model, x, t, top, bottom):
    half = len(x) // 2
    return torch.cat([model(x, t, top)[:half], model(x, t, bottom)[half:]])


@wrong("two_labels", "split the rows, not the channels")
def two_labels_split_channels(model, x, t, top, bottom):
    above, _ = model(x, t, top).chunk(2, dim=1)
    _, below = model(x, t, bottom).chunk(2, dim=1)
    return torch.cat([above, below], dim=1)


@wrong("two_labels", "variance all come from `top`")
def two_labels_noise_alone(model, x, t, top, bottom):
    channels, half = x.shape[1], x.shape[2] // 2
    out = model(x, t, top).clone()
    out[:, :channels, half:] = model(x, t, bottom)[:, :channels, half:]
    return out


@wrong("two_labels", "variance all come from `bottom`")
def two_labels_noise_alone_from_below(model, x, t, top, bottom):
    channels, half = x.shape[1], x.shape[2] // 2
    out = model(x, t, bottom).clone()
    out[:, :channels, :half] = model(x, t, top)[:, :channels, :half]
    return out


@wrong("two_labels", "Only the first channel")
def two_labels_first_channel(model, x, t, top, bottom):
    out, half = model(x, t, top), x.shape[2] // 2
    out[:, 0, half:] = model(x, t, bottom)[:, 0, half:]
    return out


@wrong("two_labels", "alternate from row to row")
def two_labels_every_other_row(model, x, t, top, bottom):
    out = model(x, t, top)
    out[:, :, 1::2] = model(x, t, bottom)[:, :, 1::2]
    return out


@wrong("two_labels", "one row too many")
def two_labels_row_too_many(model, x, t, top, bottom):
    rows = torch.arange(x.shape[2])[:, None]
    return torch.where(rows <= x.shape[2] // 2, model(x, t, top), model(x, t, bottom))


@wrong("two_labels", "one row too few")
def two_labels_row_too_few(model, x, t, top, bottom):
    rows = torch.arange(x.shape[2])[:, None]
    return torch.where(rows < x.shape[2] // 2 - 1, model(x, t, top), model(x, t, bottom))


@wrong("two_labels", "always has 4 rows")
def two_labels_four_rows(model, x, t, top, bottom):
    return torch.cat([model(x, t, top)[:, :, :4], model(x, t, bottom)[:, :, 4:]], dim=2)


@wrong("two_labels", "has W/2 rows")
def two_labels_width_for_height(model, x, t, top, bottom):
    half = x.shape[-1] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "has C rows")
def two_labels_channels_for_height(model, x, t, top, bottom):
    a, b = model(x, t, top), model(x, t, bottom)
    half = a.shape[1] // 2
    return torch.cat([a[:, :, :half], b[:, :, half:]], dim=2)


@wrong("two_labels", "All rows come from the prediction with `top`")
def two_labels_top_alone(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, top)[:, :, half:]], dim=2)


@wrong("two_labels", "All rows come from the prediction with `bottom`")
def two_labels_bottom_alone(model, x, t, top, bottom):
    out = model(x, t, top)
    out = model(x, t, bottom)
    return out


@wrong("two_labels", "gets half of the image")
def two_labels_cropped(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x[:, :, :half], t, top), model(x[:, :, half:], t, bottom)], dim=2)


@wrong("two_labels", "set to 0 before the model gets it")
def two_labels_blanked(model, x, t, top, bottom):
    above = (torch.arange(x.shape[2]) < x.shape[2] // 2).to(x)[:, None]
    return above * model(above * x, t, top) + (1 - above) * model((1 - above) * x, t, bottom)


@wrong("two_labels", "gets the first prediction as the upper rows")
def two_labels_one_after_the_other(model, x, t, top, bottom):
    half, seen = x.shape[2] // 2, x.clone()
    upper = model(x, t, top)[:, :, :half]
    seen[:, :, :half] = upper[:, : x.shape[1]]
    return torch.cat([upper, model(seen, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "gets t = 0")
def two_labels_no_timestep(model, x, t, top, bottom):
    half, t = x.shape[2] // 2, torch.zeros(len(x))
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "timestep of the first one")
def two_labels_first_timestep(model, x, t, top, bottom):
    half, t = x.shape[2] // 2, t[0].expand(len(x))
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "labels of the first one")
def two_labels_first_label(model, x, t, top, bottom):
    half = x.shape[2] // 2
    above, below = (torch.full((len(x),), int(label[0])) for label in (top, bottom))
    return torch.cat([model(x, t, above)[:, :, :half], model(x, t, below)[:, :, half:]], dim=2)


@wrong("two_labels", "exchanged in the call")
def two_labels_arguments_exchanged(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, top, t)[:, :, :half], model(x, bottom, t)[:, :, half:]], dim=2)


@wrong("two_labels", "no mix of the two classes")
def two_labels_mean_label(model, x, t, top, bottom):
    return model(x, t, torch.stack([top, bottom]).double().mean(0))


@wrong("two_labels", "number of another class")
def two_labels_whole_mean_label(model, x, t, top, bottom):
    return model(x, t, (top + bottom) // 2)


@wrong("two_labels", "averaged in all rows")
def two_labels_mean_prediction(model, x, t, top, bottom):
    return torch.stack([model(x, t, top), model(x, t, bottom)]).mean(0)


@wrong("two_labels", "added in all rows")
def two_labels_sum(model, x, t, top, bottom):
    return model(x, t, top) + model(x, t, bottom)


@wrong("two_labels", "changes gradually")
def two_labels_gradient(model, x, t, top, bottom):
    h = x.shape[2]
    w = 1 - torch.arange(h).double().view(h, 1) / (h - 1)
    return w * model(x, t, top) + (1 - w) * model(x, t, bottom)


@wrong("two_labels", "Both halves are upper rows")
def two_labels_upper_twice(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, label)[:, :, :half] for label in (top, bottom)], dim=2)


@wrong("two_labels", "Both halves are lower rows")
def two_labels_lower_twice(model, x, t, top, bottom):
    return torch.cat([model(x, t, label).chunk(2, dim=2)[1] for label in (top, bottom)], dim=2)


@wrong("two_labels", "lower rows are 0")
def two_labels_lower_forgotten(model, x, t, top, bottom):
    a, half = model(x, t, top), x.shape[2] // 2
    out = torch.zeros_like(a)
    out[:, :, :half] = a[:, :, :half]
    return out


@wrong("two_labels", "upper rows are 0")
def two_labels_upper_forgotten(model, x, t, top, bottom):
    rows = torch.arange(x.shape[2])[:, None]
    return model(x, t, bottom) * (rows >= x.shape[2] // 2)


@wrong("two_labels", "Only the upper rows are returned")
def two_labels_upper_returned(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return model(x, t, top)[:, :, :half]


@wrong("two_labels", "Only the noise is returned")
def two_labels_noise_returned(model, x, t, top, bottom):
    c, half = x.shape[1], x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :c, :half], model(x, t, bottom)[:, :c, half:]], dim=2)


@wrong("two_labels", "joined along the images")
def two_labels_default_dim(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]])


@wrong("two_labels", "joined along the channels")
def two_labels_dim_1(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], 1)


@wrong("two_labels", "joined side by side")
def two_labels_hstack(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], -1)


@wrong("two_labels", "gives 2H rows")
def two_labels_stacked_whole(model, x, t, top, bottom):
    return torch.cat([model(x, t, top), model(x, t, bottom)], dim=2)


@wrong("two_labels", "Row H/2 is missing")
def two_labels_row_missing(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half + 1 :]], dim=2)


@wrong("two_labels", "Row H/2 is there twice")
def two_labels_row_twice(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, : half + 1], model(x, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "subtracted from x")
def two_labels_denoised(model, x, t, top, bottom):
    c, half = x.shape[1], x.shape[2] // 2
    eps = torch.cat([model(x, t, top)[:, :c, :half], model(x, t, bottom)[:, :c, half:]], dim=2)
    return x - eps


@wrong("two_labels", "single one: is the axis of the images lost")
def two_labels_squeezed(model, x, t, top, bottom):
    half = x.shape[2] // 2
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2).squeeze(0)


@wrong("two_labels", "changes its input x")
def two_labels_x_blanked_in_place(model, x, t, top, bottom):
    half, upper = x.shape[2] // 2, model(x, t, top)
    x[:, :, :half] = 0
    return torch.cat([upper[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "left and right, and exchanged")
def two_labels_right_left(model, x, t, top, bottom):
    half = x.shape[3] // 2
    return torch.cat([model(x, t, bottom)[..., :half], model(x, t, top)[..., half:]], dim=3)


@wrong("two_labels", "Only the numbers for the variance")
def two_labels_variance_alone(model, x, t, top, bottom):
    channels, half = x.shape[1], x.shape[2] // 2
    out = model(x, t, top)
    out[:, channels:, half:] = model(x, t, bottom)[:, channels:, half:]
    return out


@wrong("two_labels", "a quarter of the rows")
def two_labels_quarter(model, x, t, top, bottom):
    part = x.shape[2] // 4
    return torch.cat([model(x, t, top)[:, :, :part], model(x, t, bottom)[:, :, part:]], dim=2)


@wrong("two_labels", "begin with `bottom`")
def two_labels_every_other_row_exchanged(model, x, t, top, bottom):
    out = model(x, t, top)
    out[:, :, ::2] = model(x, t, bottom)[:, :, ::2]
    return out


@wrong("two_labels", "larger half of the images")
def two_labels_chunks_of_images(model, x, t, top, bottom):
    y = torch.cat([top[: (len(x) + 1) // 2], bottom[(len(x) + 1) // 2 :]])
    return model(x, t, y)


@wrong("two_labels", "divided by 1000")
def two_labels_small_timesteps(model, x, t, top, bottom):
    half, t = x.shape[2] // 2, t / 1000
    return torch.cat([model(x, t, top)[:, :, :half], model(x, t, bottom)[:, :, half:]], dim=2)


@wrong("two_labels", "difference of the two predictions")
def two_labels_difference(model, x, t, top, bottom):
    return model(x, t, top) - model(x, t, bottom)


@wrong("two_labels", "larger of the two predictions")
def two_labels_maximum(model, x, t, top, bottom):
    return torch.max(model(x, t, top), model(x, t, bottom))
