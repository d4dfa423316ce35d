"""Grader of the forward pass of a DiT, against the library's DiT and an identity without an oracle."""

from types import SimpleNamespace

import torch

from dit_nb import DiT
from dit_nb.teach.graders.framework.core import reference_solution
from support import model_inputs, randomize, relative, tiny_config


@torch.no_grad()
def test_the_reference_is_the_forward_pass_of_the_library():
    model = randomize(DiT(tiny_config())).eval()
    parts = SimpleNamespace(
        **{
            name: getattr(model, name)
            for name in ("x_embedder", "pos_embed", "t_embedder", "y_embedder", "blocks", "final_layer")
        },
        grid=model.grid,
        patch_size=model.config.patch_size,
    )
    x, t, y = model_inputs(model)
    eps, values = reference_solution("dit_forward")(parts, x, t, y)
    assert relative(torch.cat([eps, values], 1), model(x, t, y)) < 1e-6


def test_noise_and_values_stand_where_the_final_layer_puts_them(check_identity):
    """With a constant final layer that counts, channel c of pixel (i, j) is ((i % p) p + j % p) 2C + c."""

    def holds(fn, parts, x, t, y):
        n, c, *_ = x.shape
        p = parts.patch_size
        counting = torch.arange(p * p * 2 * c, dtype=x.dtype)
        plain = fn(parts, x, t, y)
        seen = []

        def final(tokens, condition):
            seen.append((tokens, condition))
            return counting.expand(n, tokens.shape[1], -1)

        both = torch.cat(fn(parts._replace(final_layer=final), x, t, y), 1)
        want = x.new_zeros(2 * c, *x.shape[2:])
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                start = ((i % p) * p + j % p) * 2 * c
                want[:, i, j] = counting[start : start + 2 * c]
        tokens = parts.x_embedder(x) + parts.pos_embed
        condition = parts.t_embedder(t) + parts.y_embedder(y)
        for block in parts.blocks:
            tokens = block(tokens, condition)
        return (
            all(torch.equal(image, want) for image in both)
            and all(part.shape == x.shape for part in plain)
            and relative(seen[0][0], tokens) < 1e-9
            and relative(seen[0][1], condition) < 1e-9
        )

    check_identity("dit_forward", holds)
