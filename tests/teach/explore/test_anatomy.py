"""The explorers of lesson 23, against the model's activations."""

import functools

import numpy as np
import pytest
import torch

from dit_nb.anatomy import ablate, record_activations
from dit_nb.blocks.adaln import modulations
from dit_nb.data import digits
from dit_nb.pretrained import digit_model, make_diffusion, sample_images
from dit_nb.teach.explore import anatomy
from dit_nb.visual import COLORS

NEIGHBORS = {
    (0, 2): (0, 1),
    (1, 0): (0, -1),
    (2, 3): (1, 0),
    (3, 3): (-1, 0),
}  # head: rows down, columns right


@functools.cache
def made(name):
    return getattr(anatomy, name)()


@pytest.fixture
def explorer(request):
    return made(request.param).reset()


def using(name):
    return pytest.mark.parametrize("explorer", [name], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    """The explorers follow the model to its device; what they draw is compared with a CPU's numbers."""
    digit_model()[0].cpu()


@functools.cache
def held_out_digits():
    return digits().held_out


def example(t, digit):
    """x_t, t, y, noise, x0 of the digit that the explorers show."""
    held_out = held_out_digits()
    x0 = held_out.images[(held_out.labels == digit).nonzero()[0]]
    noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))[digit, None]
    times = torch.tensor([t])
    diffusion = make_diffusion(digit_model()[1])
    return diffusion.q_sample(x0, times, noise), times, torch.tensor([digit]), noise, x0


def image(explorer, ax, i=0):
    return np.ma.filled(explorer.figure.axes[ax].images[i].get_array().astype(float), np.nan)


def is_wrong(text):
    return text.get_color() == COLORS["wrong"]


# attention maps


@using("explore_attention_maps")
def test_map_of_a_head(explorer):
    for t, digit, patch, head in ((100, 3, 5, (0, 2)), (400, 8, 11, (4, 1)), (0, 0, 0, (5, 3))):
        explorer.set(t=t, digit=digit, patch=patch)
        explorer.controls["head"].value = head
        x_t, *condition, _, _ = example(t, digit)
        maps = record_activations(digit_model()[0], x_t, *condition).attention[:, 0]
        assert np.allclose(image(explorer, 0), x_t[0, 0], atol=1e-6)
        drawn = image(explorer, 1)
        assert np.allclose(drawn.ravel(), maps[head][patch], atol=1e-6) and abs(drawn.sum() - 1) < 1e-5
        every = image(explorer, 2)
        block, number = head
        tile = every[5 * number : 5 * number + 4, 5 * block : 5 * block + 4]
        assert np.allclose(tile, drawn) and every.shape == (4 * 5 - 1, 6 * 5 - 1)
        for b, h in ((0, 0), (3, 1), (5, 2)):
            tile = every[5 * h : 5 * h + 4, 5 * b : 5 * b + 4]
            assert np.allclose(tile.ravel(), maps[b, h, patch], atol=1e-6)


@using("explore_attention_maps")
def test_buttons_show_the_digit(explorer):
    grid = explorer.controls["patch"]
    explorer.set(t=300, digit=7)
    x_t = example(300, 7)[0][0, 0]
    shade = float(x_t[2:4, 4:6].mean().clamp(-1, 1) / 2 + 0.5)
    assert grid.buttons[6].style.button_color == f"rgb({', '.join([str(round(255 * shade))] * 3)})"
    before = explorer.png
    grid.buttons[9].click()
    assert explorer.values()["patch"] == 9 and explorer.png != before
    assert explorer.figure.axes[0].patches[0].get_xy() == (1.5, 3.5)  # row 2, column 1 of 2x2 patches


@using("explore_attention_maps")
def test_heads_that_attend_to_neighbors(explorer):
    hits = []
    for patch in (0, 3, 5, 6, 9, 10, 12, 15):
        every = image(explorer.set(patch=patch), 2)
        for (block, number), (down, right) in NEIGHBORS.items():
            drawn = every[5 * number : 5 * number + 4, 5 * block : 5 * block + 4]
            row, column = patch // 4 + down, patch % 4 + right
            if 0 <= row < 4 and 0 <= column < 4:
                hits.append(np.unravel_index(drawn.argmax(), (4, 4)) == (row, column))
    assert len(hits) == 24 and np.mean(hits) > 0.9


@using("explore_attention_maps")
def test_pure_noise_gives_uniform_attention(explorer):
    clear = np.nanmax(image(explorer, 2))
    noise = image(explorer.set(t=999), 2)
    assert clear > 0.9 and np.nanmax(noise) < 0.4
    assert np.nanmean(np.abs(noise - 1 / 16)) < 0.02


@using("explore_attention_maps")
def test_the_column_is_wrong(explorer):
    right = image(explorer, 1)
    assert not is_wrong(explorer.figure.axes[1].title)
    wrong = image(explorer.set(column=True), 1)
    x_t, *condition, _, _ = example(100, 3)
    maps = record_activations(digit_model()[0], x_t, *condition).attention[0, 0, 2]
    assert np.allclose(wrong.ravel(), maps[:, 5], atol=1e-6)
    assert is_wrong(explorer.figure.axes[1].title) and abs(wrong.sum() - 1) > 0.1
    assert right.argmax() == 6 and wrong.argmax() == 4  # left and right are swapped


# modulation


@using("explore_modulation")
def test_map_of_a_modulation(explorer):
    model = digit_model()[0]
    for quantity, branch, digit in (("gate", "mlp", 1), ("shift", "attention", 7), ("scale", "mlp", -1)):
        explorer.set(quantity=quantity, branch=branch, digit=digit)
        drawn, label = image(explorer, 0), image(explorer, 1)
        assert drawn.shape == label.shape == (6, 28)
        for column, t in ((0, 0), (5, 185), (27, 999)):
            with torch.no_grad():
                c = model.t_embedder(torch.full((11,), t)) + model.y_embedder(torch.arange(11))
            for block in (0, 5):
                with torch.no_grad():
                    part = modulations(model.blocks[block].adaLN_modulation(c))[branch == "mlp"]
                values = getattr(part, quantity)[:, 0]  # (11, D)
                assert abs(drawn[block, column] - values[digit].abs().mean()) < 1e-5
                expected = (values[digit] - values[:10].mean(0)).abs().mean()
                assert abs(label[block, column] - expected) < 1e-5


@using("explore_modulation")
def test_gates_grow_as_noise_decreases(explorer):
    for digit in (0, 4, 8, -1):
        drawn = image(explorer.set(digit=digit), 0)
        assert (drawn[:, 0] >= 2 * drawn[:, -1]).all()


@using("explore_modulation")
def test_scale_goes_the_other_way(explorer):
    for digit in (1, 8):
        last = image(explorer.set(quantity="scale", digit=digit), 0)[5]
        times = np.arange(0, 1000, 37)
        assert np.interp(600, times, last) > 1.3 * np.interp(50, times, last)


@using("explore_modulation")
def test_each_digit_has_its_own_modulation(explorer):
    parts = [image(explorer.set(digit=k), 1) for k in (0, 2, 4, 7, 9)]
    for part in parts:
        strength = part.mean(axis=0)
        assert strength[:14].sum() > 1.3 * strength[14:].sum() and strength[0] < 0.75 * strength.max()
        assert 37 <= 37 * strength.argmax() <= 500
    assert all(np.abs(a - b).max() > 0.005 for i, a in enumerate(parts) for b in parts[:i])


@using("explore_modulation")
def test_colors_are_the_same_for_all_digits_and_branches(explorer):
    limits = set()
    for branch in ("attention", "mlp"):
        for digit in (0, 5, -1):
            axes = explorer.set(branch=branch, digit=digit).figure.axes[:2]
            limits |= {ax.images[0].get_clim() for ax in axes}
    assert len(limits) == 1


@using("explore_modulation")
def test_signed_values_cancel(explorer):
    right = image(explorer, 0)
    explorer.controls["signed"].value = True
    wrong = image(explorer, 0)
    assert is_wrong(explorer.figure.axes[0].title) and np.abs(wrong).max() < 0.3 * right.max()


# ablation


def tiles(explorer, row):
    sheet = image(explorer, 0)[9 * row : 9 * row + 8]
    return np.stack([sheet[:, 9 * i : 9 * i + 8] for i in range(6)])


def heights(explorer):
    return np.array([bar.get_height() for bar in explorer.figure.axes[1].patches])


def drawn_change(explorer):
    return np.abs(tiles(explorer, 0) - tiles(explorer, 1)).mean()


def lines(explorer):
    dashed, dot = explorer.figure.axes[1].lines
    return dashed.get_ydata()[0], dot.get_ydata()[0]


@using("explore_ablation")
def test_samples_without_a_branch(explorer):
    model, sampling = digit_model()
    explorer.set(block=2, branch="all", digit=8)
    options = {"seed": 0, "progress": False}
    labels = torch.full((6,), 8)
    full = sample_images(model, sampling, labels, **options)
    with ablate(model, 2):
        part = sample_images(model, sampling, labels, **options)
    assert np.allclose(tiles(explorer, 0), full[:, 0], atol=1e-6)
    assert np.allclose(tiles(explorer, 1), part[:, 0], atol=1e-6)
    assert not torch.equal(full, part)


@using("explore_ablation")
def test_the_error_is_that_of_the_noise(explorer):
    """Once more, one image at a time."""
    model, sampling = digit_model()
    diffusion, t = make_diffusion(sampling), torch.linspace(0, 999, 200).round().long()
    noise = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x0 = torch.cat([example(0, k)[4] for k in range(10)]).repeat(20, 1, 1, 1)
    y = torch.arange(200) % 10
    dashed, dot = lines(explorer)
    with torch.no_grad():
        loss = diffusion.training_losses(model, x0, t, y, noise)["mse"].mean()
        assert abs(dashed - loss) < 1e-5
        with ablate(model, 0, "mlp"):
            loss = diffusion.training_losses(model, x0, t, y, noise)["mse"].mean()
    assert abs(dot - loss) < 1e-5 and abs(heights(explorer)[0] - loss) < 1e-5


@using("explore_ablation")
def test_block_0_matters_most(explorer):
    errors, (dashed, _) = heights(explorer), lines(explorer)
    assert errors.argmax() == 0 and errors[0] > 2 * errors[1:].max()
    first = drawn_change(explorer)
    for block in (4, 5):
        late = drawn_change(explorer.set(block=block))
        assert errors[block] > 1.2 * dashed and late < 0.1 < 0.5 * first


@using("explore_ablation")
def test_no_single_attention_matters(explorer):
    explorer.set(branch="attention")
    assert np.abs(heights(explorer) - lines(explorer)[0]).max() < 0.02


@using("explore_ablation")
def test_gates_times_one_and_another_seed(explorer):
    explorer.set(keep=1.0)
    dashed, dot = lines(explorer)
    assert drawn_change(explorer) == 0 and dashed == dot
    assert not is_wrong(explorer.figure.axes[0].title)
    explorer.controls["reseed"].value = True
    assert drawn_change(explorer) > 0.1 and is_wrong(explorer.figure.axes[0].title)
    assert lines(explorer) == (dashed, dot)  # nothing was changed


@using("explore_ablation")
def test_partial_ablation(explorer):
    errors = [lines(explorer.set(keep=keep))[1] for keep in (0.0, 0.5, 1.0)]
    assert errors[0] > errors[1] > errors[2]


# lens


def curve(explorer):
    return explorer.figure.axes[2].lines[1].get_ydata()


@using("explore_lens")
def test_predictions_by_depth(explorer):
    """The tokens after k blocks, by calling the blocks; the final layer by the model's own last lines."""
    model, diffusion = digit_model()[0], make_diffusion(digit_model()[1])
    for t, digit in ((300, 3), (50, 6), (999, 0)):
        explorer.set(t=t, digit=digit)
        x_t, times, y, noise, x0 = example(t, digit)
        strip = image(explorer, 0)
        for k in (0, 2, 6):
            with torch.no_grad():
                c = model.t_embedder(times) + model.y_embedder(y)
                tokens = model.x_embedder(x_t) + model.pos_embed
                for block in model.blocks[:k]:
                    tokens = block(tokens, c)
                out = model.final_layer(tokens, c)  # (1, 16, 2*2*2)
            out = out.view(4, 4, 2, 2, 2).permute(4, 0, 2, 1, 3).reshape(1, 2, 8, 8)
            eps = out[:, :1]
            assert abs(curve(explorer)[k] - (eps - noise).square().mean()) < 1e-5
            expected = diffusion.eps_to_x0(x_t, times, eps).clamp(-1, 1)[0, 0]
            column = strip[:, 9 * (k + 1) : 9 * (k + 1) + 8]
            assert np.allclose(column, expected, atol=2e-3)
        assert np.allclose(strip[:, :8], x_t[0, 0].clamp(-1, 1), atol=1e-6)
        assert np.allclose(strip[:, -8:], x0[0, 0])


@using("explore_lens")
def test_changes_are_differences(explorer):
    strip, changes = image(explorer, 0), image(explorer, 1)
    for k in range(1, 7):
        now, before = (strip[:, 9 * i : 9 * i + 8] for i in (k + 1, k))
        assert np.allclose(changes[:, 9 * (k + 1) : 9 * (k + 1) + 8], now - before)
    assert np.isnan(changes[:, : 9 * 2 - 1]).all() and np.isnan(changes[:, -8:]).all()


@using("explore_lens")
def test_k_moves_the_frame(explorer):
    for k in (0, 1, 6):
        explorer.set(k=k)
        assert explorer.figure.axes[0].patches[0].get_xy()[0] == 9 * (k + 1) - 0.5
        assert explorer.figure.axes[2].lines[2].get_ydata()[0] == curve(explorer)[k]


@using("explore_lens")
def test_a_3_emerges(explorer):
    assert (np.diff(curve(explorer)) < 0).all()
    strip = image(explorer, 0)
    truth = strip[:, -8:]
    far = [np.abs(strip[:, 9 * (k + 1) : 9 * (k + 1) + 8] - truth).mean() for k in range(7)]
    assert far[6] < 0.25 < 0.5 < far[0]


@using("explore_lens")
def test_at_high_noise_the_last_blocks_matter_most(explorer):
    errors = curve(explorer.set(t=700))
    assert errors[1] < 2 * errors[4] and errors[6] < errors[4] / 100


@using("explore_lens")
def test_without_shift_and_scale_the_output_is_wrong(explorer):
    right, before = curve(explorer).copy(), image(explorer, 0)
    explorer.controls["bare"].value = True
    wrong, (gray, *_) = curve(explorer), explorer.figure.axes[2].lines
    assert wrong[-1] > 2 * right[-1] and np.allclose(gray.get_ydata(), right)
    assert is_wrong(explorer.figure.axes[0].title) and not np.allclose(
        before, image(explorer, 0), equal_nan=True
    )


# your own


def test_own_functions():
    def doubled(model, tokens, c):
        return 2 * anatomy._decode_tokens(model, tokens, c)

    own = anatomy.explore_lens(_decode_tokens=doubled)
    assert not np.allclose(curve(own), curve(made("explore_lens").reset()))
    half = anatomy.explore_modulation(modulation_map=lambda *a: anatomy.modulation_map(*a) / 2)
    assert np.allclose(2 * image(half, 0), image(made("explore_modulation").reset(), 0))
