"""The explorers of lessons 08 to 13: what they draw, against independent computations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dit_nb.attention import CrossAttention
from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.blocks.in_context import InContextBlock
from dit_nb.config import DiTConfig
from dit_nb.cost import cost
from dit_nb.data import running_example, sample_photo
from dit_nb.model import BLOCKS, DiT
from dit_nb.teach.explore import adaln, adaln_zero, cross_attention, in_context
from dit_nb.teach.explore import cost as cost_explorer
from dit_nb.teach.explore import model as model_explorer
from dit_nb.teach.explore.core import Explorer
from dit_nb.visual import COLORS

torch.set_num_threads(1)
ROOMS = (adaln, adaln_zero, in_context, cross_attention, cost_explorer, model_explorer)
room = SimpleNamespace(**{k: v for m in ROOMS for k, v in vars(m).items()})


@pytest.fixture(scope="module")
def made():
    """Each explorer, made once."""
    names = ("in_context", "cross_attention", "modulate", "gate", "model", "cost")
    return {name: getattr(room, f"explore_{name}")() for name in names}


@pytest.fixture
def explorer(made, request):
    """The explorer of a test, as it was at the start."""
    return made[request.param].reset()


def of(name):
    """A test of one explorer."""
    return pytest.mark.parametrize("explorer", [name], indirect=True)


def turn(explorer: Explorer, **values):
    """Turn the knobs by hand, one after the other; nothing may go wrong on the way."""
    for name, value in values.items():
        explorer.controls[name].value = value
        assert not explorer.problem.value
    return explorer.figure


def pixels(ax):
    """The image that was drawn."""
    return np.asarray(ax.images[0].get_array(), dtype=float)


def test_shape_of_all(made):
    for name, explorer in made.items():
        explorer.reset()
        assert len(explorer.controls) <= 5 and len(explorer.tries) == 3, name
        assert explorer.figure.get_size_inches()[0] <= 9 and explorer.figure.get_size_inches()[1] <= 4
        assert len(explorer.figure.words) > 40
        right = explorer.png
        assert explorer.set(wrong=True).png != right
        assert explorer.reset().png == right  # and drawn the same twice


# 06


def queue(patch, block, head):
    """Attention of the running digit's queue, from the weights, with loops over blocks only."""
    torch.manual_seed(0)
    side, D = 8 // patch, 48
    embed, time = room.PatchEmbed(patch, 1, D), room.TimestepEmbedder(D)
    label = room.LabelEmbedder(10, D, 0)
    blocks = [InContextBlock(D, 4) for _ in range(8)]
    x0, y = running_example()
    with torch.no_grad():
        image = embed(x0)[0] + room.sincos_2d((side, side), D).float()
        x = torch.cat([image, time(torch.tensor([500])), label(y)])[None]
        for b in blocks[: block - 1]:
            b.attn.qkv.weight[:D] *= 5
            x = b(x)
        b = blocks[block - 1]
        w, bias, h = b.attn.qkv.weight, b.attn.qkv.bias, b.norm1(x)[0]
        rows = slice(head * 12, head * 12 + 12)
        q = h @ (5 * w[:D][rows]).T + bias[:D][rows]
        k = h @ w[D : 2 * D][rows].T + bias[D : 2 * D][rows]
        return (q @ k.T / 12**0.5).softmax(dim=-1)


@of("in_context")
def test_in_context_draws_the_attention(explorer):
    for patch, block, head in ((2, 1, 1), (2, 3, 2), (4, 8, 0)):
        fig = turn(explorer, patch=patch, block=block, head=head)
        expected = queue(patch, block, head)
        np.testing.assert_allclose(pixels(fig.axes[0]), expected, atol=2e-5)
        T = (8 // patch) ** 2
        assert f"{expected[:T, T:].sum(1).mean():.0%}" in fig.axes[0].get_title()


@of("in_context")
def test_in_context_experiments(explorer):
    shares = []
    for patch in (4, 2, 1):
        weights = pixels(turn(explorer, patch=patch).axes[0])
        shares.append(weights[:-2, -2:].sum(axis=1).mean())
    assert shares == sorted(shares, reverse=True) and shares[0] > 3 * shares[2]
    explorer.reset()
    for patch in (4, 2, 1):  # the dye is on a patch: t and y hear of it, with two fresh tokens they never do
        right = pixels(explorer.set(patch=patch, source=2, wrong=False).figure.axes[1])
        wrong = pixels(explorer.set(wrong=True).figure.axes[1])
        assert (right[1:, -2:] > -2.5).all()
        assert (wrong[:, -2:] == -9).all() and (wrong[1:, :-2] > -3).all()
        assert explorer.figure.axes[1].title.get_color() == COLORS["wrong"]


@of("in_context")
def test_dye_starts_on_one_token(explorer):
    for source, token in ((0, 16), (1, 17), (2, 10)):
        before = pixels(turn(explorer, source=source).axes[1])[0]
        assert before.argmax() == token and (np.delete(before, token) == -9).all()
        assert abs(before[token]) < 1e-3  # moves by what it is nudged


def test_in_context_with_my_own_block():
    class Deaf(InContextBlock):
        def forward(self, x, cond=None):
            return x + self.mlp(self.norm2(x))

    dye = pixels(room.explore_in_context(Deaf).figure.axes[1])
    assert (dye[:, :17] == -9).all() and (dye[:, 17] > -1).all()  # without attention nothing spreads


# 07


@of("cross_attention")
def test_knobs_are_the_softmax(explorer):
    desk = room.make_desk()
    for digit, head, loud in ((3, 0, 1.0), (8, 2, 4.0), (0, 3, 0.2)):
        fig = turn(explorer, digit=digit, head=head, loud=loud)
        x, c, one = desk.tokens[digit], loud * desk.context[digit], slice(16 * head, 16 * head + 16)
        cross = desk.attention
        with torch.no_grad():
            q = x @ cross.q.weight[one].T
            score = q @ (cross.kv.weight[:64][one] @ c.T) / 4  # (16, 2)
            expected = score[:, 1].exp() / score.exp().sum(dim=1)
        knobs = fig.axes[2].collections[1].get_offsets()
        np.testing.assert_allclose(knobs[:, 0], expected, atol=1e-5)
        np.testing.assert_allclose(pixels(fig.axes[1]).ravel(), expected, atol=1e-5)


@of("cross_attention")
def test_cross_attention_experiments(explorer):
    for head, axis in ((1, 1), (2, 0)):
        for digit in (3, 7):
            means = pixels(explorer.set(head=head, digit=digit).figure.axes[1]).mean(axis=axis)
            assert (np.diff(means) > 0).all() and means[0] < 0.4 < 0.6 < means[-1]
    for head in range(4):
        assert abs(pixels(explorer.set(head=head, loud=0.02).figure.axes[1]) - 0.5).max() < 0.03
    explorer.reset()
    for values in ({"digit": 8}, {"head": 3, "loud": 4.0}, {"patch": 15}):
        fig = explorer.set(wrong=True, **values).figure
        assert (fig.axes[2].collections[1].get_offsets()[:, 0] == 1).all()
        assert "stuck" in fig.axes[2].get_title()


@of("cross_attention")
def test_ink_asks_y(explorer):
    for digit in (0, 3, 8):
        fig = turn(explorer, digit=digit)
        ink = pixels(fig.axes[0]).reshape(4, 2, 4, 2).mean(axis=(1, 3))
        assert np.corrcoef(ink.ravel(), pixels(fig.axes[1]).ravel())[0, 1] > 0.85


@of("cross_attention")
def test_clicking_a_patch(explorer):
    explorer.controls["patch"].buttons[7].click()
    assert explorer.figure.axes[2].get_title().split("\n")[1].startswith("patch 7:")
    box = explorer.figure.axes[0].patches[0]
    assert (box.get_x(), box.get_y()) == (5.5, 1.5)


def test_cross_attention_with_my_own():
    class Hard(CrossAttention):
        def maps(self, x, context):
            return (super().maps(x, context) > 0.5).float()

    knobs = room.explore_cross_attention(Hard).figure.axes[2].collections[1].get_offsets()[:, 0]
    assert set(np.unique(knobs)) == {0, 1}


# 08


def by_hand(shift, scale, everywhere, wrong):
    """The photograph, patch by patch, with numpy."""
    photo = sample_photo(size=(96, 128))[0].double().numpy()
    i, j = np.mgrid[:8, :8]
    stamp = np.ones((8, 8)) if everywhere else ((i == j) | (i + j == 7)) * 1.0
    stencil = np.ones((8, 8)) if everywhere else (j < 4) * 1.0
    out = np.empty_like(photo)
    for r in range(0, 96, 8):
        for c in range(0, 128, 8):
            v = photo[:, r : r + 8, c : c + 8]
            v = (v - v.mean()) / np.sqrt(v.var() + 1e-6)
            out[:, r : r + 8, c : c + 8] = v * (scale * stencil + (not wrong)) + shift * stamp
    return np.clip(out / 2.5, -1, 1).transpose(1, 2, 0) / 2 + 0.5


@of("modulate")
def test_modulate_draws_the_photograph(explorer):
    for shift, scale, where, wrong in ((1.0, -1.0, 1, False), (-0.5, 2.0, 0, False), (0.5, 0.5, 1, True)):
        fig = turn(explorer, shift=shift, scale=scale, where=where, wrong=wrong)
        expected = by_hand(shift, scale, where == 0, wrong)
        np.testing.assert_allclose(pixels(fig.axes[0]), expected, atol=1e-4)


def labels(fig):
    """Name, mean and standard deviation in the legend of the histograms."""
    texts = [text.get_text() for text in fig.axes[1].get_legend().get_texts()]
    return [tuple(float(part.split()[-1]) for part in text.split(": ")[1].split(",")) for text in texts]


@of("modulate")
def test_modulate_experiments(explorer):
    gone = pixels(turn(explorer, where=0).axes[0])  # scale is -1, shift is 1
    assert np.ptp(gone) == 0 and np.isclose(gone[0, 0, 0], 0.5 + 1 / 2.5 / 2)
    raw = []
    for patch in (8, 69, 163):
        as_it_is, normed, modulated = labels(explorer.set(shift=0.0, scale=0.0, patch=patch).figure)
        assert normed == modulated == (0.0, 1.0)
        raw.append(as_it_is)
    assert len(set(raw)) == 3
    assert np.ptp(pixels(explorer.figure.axes[0])) > 0.5
    fig = turn(explorer, wrong=True)
    assert (pixels(fig.axes[0]) == 0.5).all() and labels(fig)[2] == (0.0, 0.0)
    counts = fig.axes[1].patches[2].get_data().values
    assert (counts > 0).sum() == 1  # all 192 numbers in one bin
    assert fig.axes[1].patches[1].get_data().values.tolist() != counts.tolist()


def test_modulate_with_my_own():
    def swapped(x, shift, scale):
        return x * (1 + shift) + scale

    mine, ours = (room.explore_modulate(f).figure for f in (swapped, room.modulate))
    assert abs(pixels(mine.axes[0]) - pixels(ours.axes[0])).max() > 0.3


# 09


def lights(fig):
    """Which of the windows are lit: (3, L+2), nan where there is none."""
    drawn = fig.axes[1].images[0].get_array()
    lit = np.where(np.ma.getmaskarray(drawn), np.nan, np.ma.getdata(drawn) > -20)
    return np.where(np.isnan(np.ma.getdata(drawn).astype(float)), np.nan, lit)


def frames(fig):
    """The fourteen pictures on top."""
    strip = pixels(fig.axes[0])
    return [strip[:, 9 * i : 9 * i + 8] for i in range(14)]


@of("gate")
def test_three_steps_of_waking(explorer):
    step0, step1, step2 = (lights(turn(explorer, step=step)) for step in (0, 1, 2))
    assert np.isnan(step0[1, [0, -1]]).all() and np.isnan(step0).sum() == 2
    assert np.nansum(step0) == 1 and step0[0, -1] == 1  # the final linear layer
    expected = np.zeros((3, 14))
    expected[0, [0, -1]] = expected[1, 1:-1] = expected[2, -1] = 1  # patches, final layer, gates
    assert (np.nan_to_num(step1) == expected).all()
    assert np.nansum(step2) == 40


@of("gate")
def test_digit_comes_out_as_it_went_in(explorer):
    fig = turn(explorer, step=0)
    x0 = running_example()[0][0, 0]
    np.testing.assert_allclose(frames(fig)[0], x0, atol=1e-5)
    assert all((frame == frames(fig)[0]).all() for frame in frames(fig)[:-1])
    assert (frames(fig)[-1] == 0).all()  # the answer
    loud = fig.axes[2].lines[0].get_ydata()
    assert len(loud) == 13 and (loud == loud[0]).all()
    assert "exactly as it went in" in fig.axes[0].get_title()


@of("gate")
def test_opening_the_gates(explorer):
    alike, ends = [], []
    for gate in (0.0, 0.1, 0.3, 1.0):
        fig = turn(explorer, step=0, gate=gate)
        heights = fig.axes[2].patches[0].get_data().values
        np.testing.assert_allclose(heights, gate, atol=1e-6)
        assert np.nansum(lights(fig)) == 1
        first, *_, last = frames(fig)[:-1]
        alike.append(np.corrcoef(first.ravel(), last.ravel())[0, 1])
        loud = fig.axes[2].lines[0].get_ydata()
        ends.append(loud[-1] / loud[0])
    assert alike == sorted(alike, reverse=True) and alike[0] > 0.999 > 0.5 > alike[-1]
    assert ends == sorted(ends) and ends[0] == 1 and ends[-1] > 3
    assert loud[-1] < fig.axes[2].get_ylim()[1]


@of("gate")
def test_xavier_last_overwrites_the_knob(explorer):
    shut = turn(explorer, step=0, wrong=True)
    open_ = turn(explorer, gate=1.0)
    assert all((a == b).all() for a, b in zip(frames(shut), frames(open_)))
    assert np.nansum(lights(shut)) == 40
    assert np.corrcoef(frames(shut)[0].ravel(), frames(shut)[12].ravel())[0, 1] < 0.9
    assert float(shut.axes[0].get_title().split("loss ")[1].split(";")[0]) > 1.5
    assert shut.axes[0].title.get_color() == COLORS["wrong"]
    assert shut.axes[2].patches[0].get_data().values.min() > 0.1


def test_lights_are_the_gradients():
    torch.manual_seed(3)
    model = room.gate_model(AdaLNZeroBlock, 0.5)
    nn.init.normal_(model.final_layer.linear.weight)
    x, y = running_example()
    model(x, torch.tensor([7]), y).square().sum().backward()
    got, block = room.light(model), model.blocks[4]
    both = torch.cat([p.grad.flatten() for part in (block.attn, block.mlp) for p in part.parameters()])
    fields = torch.cat(
        [block.adaLN_modulation[1].weight.grad, block.adaLN_modulation[1].bias.grad[:, None]], 1
    )
    gate = torch.cat([fields[96:144], fields[240:]])
    assert torch.isclose(got[0, 5], both.double().norm()) and torch.isclose(got[1, 5], gate.double().norm())
    assert torch.isclose(got[1:, 5].norm(), fields.double().norm())


def test_gate_with_my_own_block():
    class Sigmoid(AdaLNZeroBlock):
        def condition(self, c):
            fields = super().condition(c).clone()
            fields[:, [2, 5]] = fields[:, [2, 5]].sigmoid()
            return fields

    fig = room.explore_gate(Sigmoid).set(step=0).figure
    assert fig.axes[2].patches[0].get_data().values.tolist() == [0.5] * 12
    assert "exactly as it went in" not in fig.axes[0].get_title()


# 10


@of("model")
def test_area_is_work(explorer):
    for size, patch, image, block in (("XL", 2, 256, "adaln_zero"), ("S", 8, 512, "cross_attention")):
        fig = turn(explorer, size=size, patch=patch, pixels=image, block=block)
        config = DiTConfig.named(f"DiT-{size}/{patch}", input_size=image // 8, block=block)
        c, tokens = cost(config), config.grid[0] ** 2
        area = sum(box.get_width() * box.get_height() for box in fig.axes[0].patches)
        assert np.isclose(area * c.total_params * tokens, c.total_macs)
        weights = [box.get_width() * c.total_params for box in fig.axes[0].patches if not box.get_hatch()]
        assert np.isclose(sum(weights), c.total_params) and np.isclose(weights[0], c.params["mlp"])
        star = fig.axes[1].lines[-1]
        assert np.isclose(10 ** star.get_xdata()[0], c.total_params / 1e6)
        assert np.isclose(10 ** star.get_ydata()[0], c.total_macs / 1e9)


@pytest.mark.parametrize("block", BLOCKS)
def test_split_cost_counts_what_listens(block):
    config = DiTConfig.named("DiT-S/4", block=block)
    with torch.device("meta"):
        model = DiT(config)
    count = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    listens = ("adaLN", "t_embedder", "y_embedder", "cross_attn")
    parts = room.split_cost(config)
    assert parts["t and y"][0] == sum(n for name, n in count.items() if any(word in name for word in listens))
    assert parts["MLP"][0] == sum(n for name, n in count.items() if ".mlp." in name and "blocks" in name)
    assert sum(p for p, _ in parts.values()) == sum(count.values())
    assert sum(m for _, m in parts.values()) == cost(config).total_macs


@of("model")
def test_model_experiments(explorer):
    heights, works = [], []
    for patch in (8, 4, 2):
        fig = turn(explorer, patch=patch)
        heights.append(fig.axes[0].patches[2].get_height())
        works.append(10 ** fig.axes[1].lines[-1].get_ydata()[0])
    assert heights == sorted(heights, reverse=True) and heights[0] > 10 * heights[2]
    assert all(3.9 < b / a < 4.2 for a, b in zip(works, works[1:]))
    green = {}
    for block in BLOCKS:
        box = turn(explorer, block=block).axes[0].patches[2]
        green[block] = box.get_width(), box.get_height()
    assert green["in_context"][0] < 0.01 and all(0.24 < green[b][0] < 0.35 for b in list(BLOCKS)[1:])
    assert green["cross_attention"][1] > 0.4 and max(green["adaln"][1], green["adaln_zero"][1]) < 0.01
    rings = {round(10**gflops, 2) for gflops in explorer.figure.axes[1].lines[0].get_ydata()}
    assert rings == {gflops for gflops, *_ in room.TABLE_4.values()}
    star = 10 ** explorer.reset().figure.axes[1].lines[-1].get_ydata()[0]
    assert abs(star / 118.64 - 1) < 0.001
    fig = turn(explorer, wrong=True)
    assert np.isclose(10 ** fig.axes[1].lines[-1].get_ydata()[0], 2 * star)
    assert fig.axes[1].lines[-1].get_color() == COLORS["wrong"]


# 11


def shares(fig):
    """Part -> its share in percent, from the legend, and from the height of the river at the cursor."""
    ax = fig.axes[0]
    x, found = ax.lines[-1].get_xdata()[0], {}
    for river in ax.collections:
        name, _, rest = river.get_label().rpartition(" %")[0].rpartition(" ")
        heights = [v for u, v in river.get_paths()[0].vertices if np.isclose(u, x)]
        found[name] = max(heights) - min(heights)
        assert abs(found[name] - float(rest)) < 0.051
    return found


@of("cost")
def test_river_and_line(explorer):
    for size, patch, image in (("XL", 2, 1024), ("S", 8, 64), ("B", 4, 4096)):
        fig = turn(explorer, size=size, patch=patch, pixels=image)
        config = DiTConfig.named(f"DiT-{size}/{patch}", input_size=image // 8)
        total, T = cost(config).total_macs, config.grid[0] ** 2
        assert np.isclose(10 ** fig.axes[1].lines[2].get_ydata()[0], total / 1e9)
        pairs = 2 * T**2 * config.hidden_size * config.depth
        river = shares(fig)
        assert np.isclose(river["attention: pairs"], 100 * pairs / total)
        assert np.isclose(river["MLP"], 100 * 8 * config.hidden_size**2 * T * config.depth / total)
        assert np.isclose(sum(river.values()), 100)


@of("cost")
def test_cost_experiments(explorer):
    work = [10 ** turn(explorer, pixels=p).axes[1].lines[2].get_ydata()[0] for p in (256, 512)]
    assert [round(w, 2) for w in work] == [118.62, 524.54] and round(work[1] / work[0], 2) == 4.42
    single = shares(turn(explorer, size="S", patch=8, pixels=64))
    assert 33 < single["t and y"] < 36 and "T = 1" in explorer.figure.axes[0].get_title()
    right = shares(explorer.reset().set(pixels=2048).figure)
    fig = turn(explorer, wrong=True)
    assert shares(fig)["attention: pairs"] == 0 and right["attention: pairs"] > 50
    dotted, line = (np.asarray(fig.axes[1].lines[i].get_ydata()) for i in (0, 1))
    at = list(fig.axes[1].lines[0].get_xdata()).index(11)
    missing = 1 - 10 ** (line[at] - dotted[at])
    assert np.isclose(100 * missing, right["attention: pairs"])
    assert f"{missing:.0%} missing" in fig.axes[1].get_title()
    x = np.asarray(fig.axes[1].lines[1].get_xdata())
    slope = np.diff(line[4:]) / np.diff(x[4:]) / np.log10(2)  # from 256 pixels on: straight, side squared
    assert abs(slope - 2).max() < 0.01 and (np.diff(dotted) / np.diff(x))[-1] > 3.5 * np.log10(2)


def test_cost_with_my_own():
    def doubled(config):
        c = cost(config)
        return type(c)(c.params, {k: 2 * v for k, v in c.macs.items()})

    lines = [room.explore_cost(f).figure.axes[1].lines[2].get_ydata()[0] for f in (cost, doubled)]
    assert np.isclose(10 ** (lines[1] - lines[0]), 2)
