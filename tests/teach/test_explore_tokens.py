"""The explorers of lessons 01 to 06: what is drawn, against computations of another kind."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex
from PIL import Image

from dit_nb.data import center_crop, running_example, sample_photo
from dit_nb.pretrained import digit_model
from dit_nb.teach.explore import attention, conditioning, data, patchify, positions
from dit_nb.visual import COLORS

tokens = SimpleNamespace(
    **{k: v for m in (data, patchify, positions, conditioning, attention) for k, v in vars(m).items()}
)
EXPLORERS = [f"explore_{name}" for name in ("crop", "patchify", "positions", "timestep", "attention")]


@pytest.fixture(scope="module")
def explorers():
    return {name: getattr(tokens, name)() for name in EXPLORERS}


@pytest.fixture
def explorer(explorers, request):
    """One of them, at its start."""
    return explorers[f"explore_{request.param}"].reset()


def of(name):
    return pytest.mark.parametrize("explorer", [name], indirect=True)


def axes(explorer):
    assert explorer.problem.value == ""
    return explorer.figure.axes


def drawn(ax, which=0):
    """The numbers of an image on an axes."""
    return np.asarray(ax.images[which].get_array(), dtype=float)


def is_wrong(title):
    return to_hex(title.get_color()).upper() == COLORS["wrong"]


def test_there_is_one_for_each_lesson():
    assert sorted(EXPLORERS) == [
        f"explore_{x}" for x in ("attention", "crop", "patchify", "positions", "timestep")
    ]


@pytest.mark.parametrize("name", EXPLORERS)
def test_shape_of_an_explorer(explorers, name):
    explorer = explorers[name]
    assert len(explorer.controls) <= 5 and len(explorer.tries) == 3
    assert explorer.png[:4] == b"\x89PNG" and len(explorer.figure.alt) > 40
    width, height = explorer.figure.get_size_inches()
    assert width <= 9 and height <= 4
    before = explorer.reset().png
    explorer.controls["wrong"].value = True  # as a click does
    assert explorer.png != before and explorer.problem.value == ""
    assert explorer.reset().png == before


# 01: crop


@pytest.fixture(scope="module")
def flower():
    return tokens.bundled_photos()["flower"]


def training_image(explorer):
    return np.rint(drawn(axes(explorer)[1]) * 255)


@of("crop")
def test_the_middle_is_center_crop(explorer, flower):
    for size in (16, 64, 256):
        explorer.set(size=size)
        assert np.array_equal(training_image(explorer), np.asarray(center_crop(flower, size)))
        assert axes(explorer)[2].get_title() == f"its {3 * size * size} numbers"


@of("crop")
def test_a_moved_frame_loses_only_along_the_longer_side(explorer, flower):
    for place, left in ((-1.0, 0), (1.0, 640 - 427)):
        explorer.controls["place"].value = place
        frame = axes(explorer)[0].patches[0]
        assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((left, 0), 427, 427)
        gaps = []  # to what stands there, and to what stands 15 pixels nearer to the middle
        for start in (left, abs(left - 15)):
            part = flower.crop((start, 0, start + 427, 427)).resize((64, 64), Image.Resampling.BOX)
            gaps.append(np.abs(training_image(explorer) - np.asarray(part)).mean())
        assert gaps[0] < 8 and gaps[0] < gaps[1] / 2  # of 255; the filter is another one
        photo = drawn(axes(explorer)[0])
        assert np.array_equal(photo[:, left : left + 427], np.asarray(flower)[:, left : left + 427])
        outside = photo[:, 427:] if place < 0 else photo[:, :213]
        assert outside.min() >= 160


@of("crop")
def test_without_averages_edges_are_jagged(explorer, flower):
    def roughness():
        return np.abs(np.diff(training_image(explorer), axis=1)).mean()

    smooth = roughness()
    explorer.set(average=False)
    assert roughness() > 1.2 * smooth
    pixels = np.asarray(flower)[:, 106:533].reshape(-1, 3)
    assert {*map(tuple, training_image(explorer).astype(int).reshape(-1, 3))} <= {*map(tuple, pixels)}


@of("crop")
def test_squashing_makes_an_ellipse(explorer, flower):
    circles = [ax.patches[-1] for ax in axes(explorer)[:2]]
    assert all(math.isclose(c.width, c.height) for c in circles)
    explorer.set(wrong=True)
    circles = [ax.patches[-1] for ax in axes(explorer)[:2]]
    assert math.isclose(circles[0].width, circles[0].height)
    assert math.isclose(circles[1].height / circles[1].width, 640 / 427)
    assert np.array_equal(
        training_image(explorer), np.asarray(flower.resize((64, 64), Image.Resampling.BICUBIC))
    )
    assert is_wrong(axes(explorer)[1].title) and "1.50 : 1" in axes(explorer)[1].get_title()


@of("crop")
def test_the_histogram_counts_all_numbers(explorer):
    for name in ("flower", "china"):
        explorer.set(name=name)
        bars = axes(explorer)[2].patches[0].get_data()
        values = training_image(explorer).ravel() / 127.5 - 1
        assert math.isclose(bars.values.sum(), 100)
        assert math.isclose(bars.values[bars.edges[:-1] >= 0].sum(), 100 * (values >= 0).mean(), abs_tol=1e-6)
        assert bars.values.max() < 30  # the axis ends there


def test_a_photo_of_ones_own():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 300), dtype=np.uint8))
    explorer = tokens.explore_crop(photo)
    for place in (-1.0, -0.3, 0.0, 1.0):
        explorer.set(place=place)
        assert training_image(explorer).shape == (64, 64, 3)
        x, y = axes(explorer)[0].patches[0].get_xy()
        assert x == 0 and abs(y - (1 + place) / 2 * (640 - 213)) <= 1


# 02: patchify


def lit(explorer, image):
    """Which numbers of the image are shown at full strength, (H, W, C)."""
    full = ((image[0].permute(1, 2, 0).numpy() + 1) / 2).clip(0, 1)
    shown = drawn(axes(explorer)[0]).reshape(full.shape)
    return np.isclose(shown, full, atol=1e-3) & (full > 0.01)


@pytest.fixture(scope="module")
def photo():
    return sample_photo("china.jpg", (48, 64))


@of("patchify")
@pytest.mark.parametrize("p, token", [(16, 5), (16, 11), (8, 10), (8, 11), (4, 9)])
def test_a_token_is_its_square(explorer, photo, p, token):
    explorer.set(p=p, token=token)
    row, column = divmod(token, 64 // p)
    inside = np.zeros((48, 64, 3), bool)
    inside[row * p : row * p + p, column * p : column * p + p] = True
    found = lit(explorer, photo)
    assert found[inside].mean() > 0.95 and not found[~inside].any()
    lines = drawn(axes(explorer)[1])[6 * token]  # (p*p, 3)
    square = (photo[0, :, row * p : row * p + p, column * p : column * p + p] + 1) / 2
    assert np.allclose(lines, square.flatten(1).T, atol=1e-6)
    corner = axes(explorer)[0].patches[0].get_xy()
    assert corner == (column * p - 0.5, row * p - 0.5)
    assert np.allclose(drawn(axes(explorer)[2]), (photo[0].permute(1, 2, 0) + 1) / 2, atol=1e-6)
    assert not any(is_wrong(ax.title) for ax in axes(explorer))


@of("patchify")
def test_four_tokens_on_is_one_line_down(explorer):
    x, y = axes(explorer)[0].patches[0].get_xy()
    explorer.controls["token"].value = 9
    assert axes(explorer)[0].patches[0].get_xy() == (x, y + 16)


@of("patchify")
def test_swapped_rows_and_columns(explorer, photo):
    explorer.set(swapped=True)
    out = drawn(axes(explorer)[2])
    patches = (
        ((photo[0].permute(1, 2, 0) + 1) / 2)
        .numpy()
        .reshape(3, 16, 4, 16, 3)
        .swapaxes(1, 2)
        .reshape(12, 16, 16, 3)
    )
    for k in range(12):  # whole patches, three in a line
        row, column = divmod(k, 3)
        assert np.allclose(out[16 * row :, 16 * column :][:16, :16], patches[k], atol=1e-6)
    assert is_wrong(axes(explorer)[2].title) and not is_wrong(axes(explorer)[0].title)
    explorer.set(name="64 x 64")  # a square image hides it
    square = (sample_photo("flower.jpg", (64, 96))[0, ..., 16:80].permute(1, 2, 0) + 1) / 2
    assert np.allclose(drawn(axes(explorer)[2]), square) and not is_wrong(axes(explorer)[2].title)


@of("patchify")
def test_reshape_without_permute(explorer, photo):
    explorer.set(wrong=True)
    inside = np.zeros((48, 64, 3), bool)
    inside[12:24, :, 1] = True  # numbers 3840 to 4607 of the image: twelve lines of green
    found = lit(explorer, photo)
    assert found[inside].mean() > 0.95 and not found[~inside].any()
    assert "(12, 768)" in axes(explorer)[1].get_title()
    assert is_wrong(axes(explorer)[0].title) and is_wrong(axes(explorer)[2].title)
    assert np.abs(drawn(axes(explorer)[2]) - (photo[0].permute(1, 2, 0).numpy() + 1) / 2).max() > 0.5


@of("patchify")
def test_what_does_not_fit_is_told(explorer):
    with pytest.raises(ValueError, match="token is 20, but must be from 0 to 11"):
        explorer.set(token=20)
    with pytest.raises(ValueError, match="token is 12, but there are 12"):
        tokens.plot_patchify(sample_photo("china.jpg", (48, 64)), p=16, token=12)
    explorer.set(name="64 x 64", token=11)
    assert explorer.problem.value == "" and axes(explorer)[2].get_title() == "laid out as 4 x 4: the image"


def by_hand(images, p):
    """Right, and unlike the library's in all but its result."""
    rows = [images[:, :, i : i + p, j : j + p].movedim(1, -1).flatten(1)
            for i in range(0, images.shape[2], p) for j in range(0, images.shape[3], p)]  # fmt: skip
    return torch.stack(rows, dim=1)


def columns_first(images, p):
    rows = [images[:, :, i : i + p, j : j + p].movedim(1, -1).flatten(1)
            for j in range(0, images.shape[3], p) for i in range(0, images.shape[2], p)]  # fmt: skip
    return torch.stack(rows, dim=1)


def channels_first(images, p):
    return F.unfold(images, p, stride=p).mT


def test_patchify_of_ones_own():
    wrong = {}
    for cut in (by_hand, columns_first, channels_first):
        fig = tokens.explore_patchify(patchify=cut).set(token=6).figure
        wrong[cut] = [is_wrong(ax.title) for ax in fig.axes]
    assert wrong[by_hand] == [False, False, False]
    assert wrong[columns_first] == [True, False, True]
    assert wrong[channels_first] == [False, False, True]
    own = tokens.explore_patchify(torch.rand(1, 3, 32, 32) * 2 - 1, by_hand)
    assert (
        own.controls["name"].value == "yours" and axes(own)[2].get_title() == "laid out as 4 x 4: the image"
    )


def test_patchify_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"patchify returned \(1, 768, 12\), but must return"):
        tokens.explore_patchify(patchify=lambda images, p: by_hand(images, p).mT)
    with pytest.raises(ValueError, match="patchify returned NoneType"):
        tokens.explore_patchify(patchify=lambda images, p: None)


# 03: positions


def waves(delta, half, max_period):
    """The mean cosine of all waves at a distance."""
    return np.mean([np.cos(delta * max_period ** (-i / half)) for i in range(half)], axis=0)


@of("positions")
@pytest.mark.parametrize(
    "grid, token, dim, max_period",
    [
        ("12 x 16", 86, 64, 10000.0),
        ("12 x 16", 191, 8, 10.0),
        ("14 x 14", 0, 256, 1.0),
        ("14 x 14", 100, 16, 100.0),
    ],
)
def test_similarity_is_the_sum_of_cosines(explorer, grid, token, dim, max_period):
    explorer.set(grid=grid, token=token, dim=dim, max_period=max_period)
    rows, columns = tokens.GRIDS[grid]
    row, column = divmod(token, columns)
    across = waves(np.arange(columns) - column, dim // 4, max_period)[None].repeat(rows, 0)
    down = waves(np.arange(rows) - row, dim // 4, max_period)[:, None].repeat(columns, 1)
    for ax, expected in zip(axes(explorer), (across, down, (across + down) / 2)):
        assert np.allclose(drawn(ax), expected, atol=1e-5)
        assert [float(z[0]) for z in ax.lines[0].get_data()] == [column, row]
        assert ax.images[0].get_clim() == (0.5, 1)


@of("positions")
def test_sixteen_tokens_on_is_one_row_down(explorer):
    before = drawn(axes(explorer)[2])
    explorer.controls["token"].value = 102
    assert np.allclose(drawn(axes(explorer)[2])[1:], before[:-1], atol=1e-6)


@of("positions")
def test_equally_fast_waves_come_back(explorer):
    assert (drawn(axes(explorer)[0])[5, [0, 12]] < 0.85).all()
    explorer.set(max_period=1.0)
    assert (drawn(axes(explorer)[0])[5, [0, 12]] > 0.95).all()  # six columns to either side
    assert drawn(axes(explorer)[0])[5, 9] < 0


@of("positions")
def test_a_grid_the_wrong_way_round(explorer):
    right = drawn(axes(explorer)[2])
    explorer.set(wrong=True)
    wrong = drawn(axes(explorer)[2])
    assert wrong[5, 6] == 1 and is_wrong(axes(explorer)[2].title)
    assert right[6, 6] == right[4, 6] > 0.95 and wrong[6, 6] < 0.85 and wrong[4, 6] < 0.85  # above and below
    row, column = divmod(86, 12)  # what the table of a 16 x 12 grid says of token 86
    rows, columns = np.divmod(np.arange(192), 12)
    expected = waves(columns - column, 16, 1e4) / 2 + waves(rows - row, 16, 1e4) / 2
    assert np.allclose(wrong.ravel(), expected, atol=1e-5)
    explorer.set(grid="14 x 14")
    hidden = drawn(axes(explorer)[2])
    assert not is_wrong(axes(explorer)[2].title)
    assert np.array_equal(hidden, drawn(axes(explorer.set(wrong=False))[2]))


def test_positions_of_ones_own():
    def flat(grid, dim):
        t = torch.arange(grid[0] * grid[1], dtype=torch.float64)[:, None]
        angles = t * 1e4 ** (-torch.arange(dim // 2) / (dim // 2))
        return torch.cat([angles.sin(), angles.cos()], 1)

    explorer = tokens.explore_positions(flat)
    halves = [drawn(ax) for ax in axes(explorer)[:3]]
    assert np.allclose(halves[2], (halves[0] + halves[1]) / 2, atol=1e-6)
    assert halves[2][5, 6] == 1 and halves[2][5, 7] > halves[2][6, 6]  # the row below is far away
    explorer.set(max_period=10.0)
    assert "max_period" in explorer.problem.value  # it has no such argument
    with pytest.raises(ValueError, match=r"positions have shape \(12, 16, 64\), but must be \(192, 64\)"):
        tokens.explore_positions(lambda grid, dim: torch.zeros(*grid, dim))


# 04: timesteps


def curve(explorer):
    return np.asarray(axes(explorer)[1].lines[0].get_ydata(), dtype=float)


def hands(explorer, which):
    """Where the 8 hands point: of the other timestep (1) or of t (2)."""
    x, y = (np.asarray(z, dtype=float).reshape(8, 3) for z in axes(explorer)[0].lines[which].get_data())
    return x[:, 1] - x[:, 0], y[:, 1]


@of("timestep")
@pytest.mark.parametrize(
    "t, other, dim, max_period", [(300, 320, 256, 1e4), (0, 999, 16, 10.0), (999, 5, 64, 1e5)]
)
def test_hands_and_similarity(explorer, t, other, dim, max_period):
    explorer.set(t=t, other=other, dim=dim, max_period=max_period)
    half = dim // 2
    assert np.allclose(curve(explorer), waves(np.arange(1000) - t, half, max_period), atol=1e-3)
    for which, step in ((1, other), (2, t)):
        angles = [step * max_period ** (-round(i * (half - 1) / 7) / half) for i in range(8)]
        assert np.allclose(hands(explorer, which), [np.cos(angles), np.sin(angles)], atol=1e-3)
    dots = {float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in axes(explorer)[1].lines[1:3]}
    assert dots == {t: pytest.approx(1, abs=1e-5), other: pytest.approx(curve(explorer)[other])}
    assert f"{curve(explorer)[other]:.2f}" in axes(explorer)[0].get_title()


@of("timestep")
def test_one_step_turns_only_the_fast_hands(explorer):
    explorer.controls["other"].value = 301
    turned = [abs(a - b) for a, b in zip(*(np.unwrap(np.arctan2(*hands(explorer, w)[::-1])) for w in (1, 2)))]
    assert turned[0] % (2 * math.pi) > 0.9 and turned[-1] % (2 * math.pi) < 0.001
    assert "similarity 0.97" in axes(explorer)[0].get_title()


@of("timestep")
def test_few_clocks_confuse_strangers(explorer):
    far = np.abs(np.arange(1000) - 300) > 100
    assert curve(explorer)[far].max() < 0.5
    explorer.set(dim=16)
    assert round(curve(explorer)[far].max(), 2) == 0.72
    assert axes(explorer)[1].get_ylim() == (-0.8, 1.15)  # and all of the curve is inside
    for max_period in (10.0, 100.0, 1000.0, 1e4, 1e5):
        assert curve(explorer.set(max_period=max_period)).min() > -0.8


@of("timestep")
def test_fractions_look_all_the_same(explorer):
    right = curve(explorer)
    explorer.set(wrong=True)
    assert curve(explorer).min() > 0.97 > right.min() + 0.5
    x, y = axes(explorer)[0].lines[0].get_data()  # all that the hands reach
    angles = np.arctan2(
        np.asarray(y, float), np.asarray(x, float) - np.round(np.asarray(x, float) / 2.7 - 0.3) * 2.7
    )
    assert np.abs(angles).max() < 1.01  # radians: less than a sixth of a turn
    assert is_wrong(axes(explorer)[0].title)


def test_timestep_embedding_of_ones_own():
    def sines_first(t, dim, max_period):
        angles = t[:, None].double() * max_period ** (-torch.arange(dim // 2) / (dim // 2))
        return torch.cat([angles.sin(), angles.cos()], 1)

    right, mirrored = tokens.explore_timestep(), tokens.explore_timestep(sines_first)
    assert np.allclose(hands(mirrored, 2), hands(right, 2)[::-1], atol=1e-3)
    assert np.allclose(curve(mirrored), curve(right), atol=1e-3)
    with pytest.raises(ValueError, match=r"became \(1000, 128\), but must become \(1000, 256\)"):
        tokens.explore_timestep(lambda t, dim, max_period: sines_first(t, dim // 2, max_period))


# 05: attention


@pytest.fixture(scope="module")
def scores():
    """q . k of every block and head, worked out anew: (6, 4, 16, 16)."""
    model, sampling = digit_model()
    x0, y = running_example()
    bar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).sub(1).neg().cumprod(0)[200]
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x = (bar.sqrt() * x0 + (1 - bar).sqrt() * noise).float().to(model.pos_embed.device)
    found = []
    with torch.no_grad():
        cond = model.condition(torch.tensor([200], device=x.device), y.to(x.device), None)
        x = model.x_embedder(x) + model.pos_embed
        for block, c in zip(model.blocks, cond):
            shift, scale = c[:, :1], c[:, 1:2]
            qkv = block.attn.qkv(F.layer_norm(x, (96,), eps=1e-6) * (1 + scale) + shift)
            q, k, _ = qkv.view(16, 3, 4, 24).permute(1, 2, 0, 3).cpu()
            found.append(q @ k.mT)
            x = block(x, c)
    return torch.stack(found).numpy()


def softmax(z, axis=-1):
    z = np.exp(z - z.max(axis=axis, keepdims=True))
    return z / z.sum(axis=axis, keepdims=True)


def maps(explorer):
    """Scores, scaled scores and weights, each (16,)."""
    by_place = sorted(axes(explorer)[0].images, key=lambda image: image.get_extent()[0])
    found = [np.asarray(i.get_array(), float) for i in by_place if i.get_array().shape == (4, 4)]
    return [found[i].ravel() for i in range(3)]


def all_maps(figure):
    """What each head of each block gives to each patch, (6, 4, 16), as drawn in the strip below."""
    (strip,) = [i.get_array() for i in figure.axes[0].images if i.get_array().shape[1] > 16]
    return np.stack([[strip[:, 23 * b + 5 * h :][:, :4].ravel() for h in range(4)] for b in range(6)])


@of("attention")
@pytest.mark.parametrize(
    "query, block, head, temperature", [(6, 1, 1, 1.0), (0, 6, 4, 0.25), (15, 3, 4, 10.0), (9, 4, 2, 0.1)]
)
def test_three_stages(explorer, scores, query, block, head, temperature):
    explorer.set(query=query, block=block, head=head, temperature=temperature)
    expected = scores[block - 1, head - 1, query]
    scaled = expected / math.sqrt(24) / temperature
    for found, stage in zip(maps(explorer), (expected, scaled, softmax(scaled))):
        assert np.allclose(found, stage, rtol=1e-3, atol=1e-3)
    texts = [t.get_text() for t in axes(explorer)[0].texts]
    assert "share out: sums to 1.00" in texts and f"patch {query} asks" in texts
    assert f"{expected[query]:.1f}" in texts and f"{softmax(scaled).max():.0%}" in texts


@of("attention")
def test_the_maps_of_all_heads(explorer, scores):
    explorer.controls["query"].buttons[9].click()
    expected = softmax(scores[:, :, 9] / math.sqrt(24))
    assert np.allclose(all_maps(explorer.figure), expected, atol=1e-4)


@of("attention")
def test_training_has_found_the_compass(explorer):
    compass = {(1, 3): (0, 1), (2, 1): (0, -1), (3, 4): (1, 0), (4, 4): (-1, 0)}
    found = {head: [] for head in compass}
    for query in range(16):
        shares = all_maps(explorer.plot(**{**explorer.values(), "query": query}))
        for (block, head), (down, right) in compass.items():
            row, column = query // 4 + down, query % 4 + right
            if 0 <= row < 4 and 0 <= column < 4:
                found[block, head].append(shares[block - 1, head - 1].argmax() == 4 * row + column)
    assert all(len(f) == 12 and sum(f) >= 10 for f in found.values()), found


@of("attention")
def test_temperature(explorer):
    assert round(maps(explorer.set(temperature=0.1))[2].max(), 2) == 0.92
    cool = maps(explorer.set(temperature=10.0))[2]
    assert 0.045 < cool.min() < cool.max() < 0.085


@of("attention")
def test_softmax_over_the_queries(explorer, scores):
    sums = []
    for query in (0, 5, 6, 15):
        figure = explorer.plot(**{**explorer.values(), "wrong": True, "query": query, "block": 6})
        found = all_maps(figure)
        assert np.allclose(found, softmax(scores / math.sqrt(24), axis=-2)[:, :, query], atol=1e-4)
        sums.append(found[5, 0].sum())
        title = [t for t in figure.axes[0].texts if t.get_text() == f"share out: sums to {sums[-1]:.2f}"]
        assert is_wrong(title[0])
    assert max(sums) - min(sums) > 0.5
    explorer.reset().set(wrong=True)
    assert abs(maps(explorer)[2].sum() - 1) > 0.005


def test_attention_weights_of_ones_own(scores):
    explorer = tokens.explore_attention(attention_weights=lambda q, k: (q @ k.mT / 16**0.5).softmax(-1))
    expected = softmax(scores[0, 0, 6] / 4)  # the number of tokens in place of the width
    assert np.allclose(maps(explorer)[2], expected, atol=1e-4)
    with pytest.raises(ValueError, match="weights have shape"):
        tokens.explore_attention(attention_weights=lambda q, k: q)
