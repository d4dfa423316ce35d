"""Grader of the layer norm: the moments of the normalized tokens."""

from support import relative


def test_moments_of_the_normalized_tokens(check_identity):
    """Mean 0, variance v / (v + eps), and a positive correlation of 1 with the token."""

    def holds(fn, x, eps):
        out, centered = fn(x, eps), x - x.mean(-1, keepdim=True)
        v = centered.square().mean(-1)
        return (
            out.mean(-1).abs().max() < 1e-9
            and relative(out.square().mean(-1), v / (v + eps)) < 1e-9
            and relative((out * centered).mean(-1), v / (v + eps).sqrt()) < 1e-9
        )

    check_identity("layer_norm", holds)
