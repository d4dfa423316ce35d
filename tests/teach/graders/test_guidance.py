"""Graders of guidance: a line through the two predictions."""

from support import relative


def on_the_line(guide, cond, uncond, scale):
    """Whether guide(scale) is linear, from uncond at 0 to cond at 1."""
    left, middle, right = (guide(scale + step) for step in (-1.0, 0.0, 1.0))
    ends = relative(guide(0.0), uncond) < 1e-9 and relative(guide(1.0), cond) < 1e-9
    return ends and relative((left + right) / 2, middle) < 1e-9


def test_the_scale_runs_along_a_line(check_identity):
    check_identity(
        "cfg_eps",
        lambda fn, cond, uncond, w: on_the_line(lambda scale: fn(cond, uncond, scale), cond, uncond, w),
    )


def test_only_the_first_half_of_the_channels_is_guided(check_identity):
    def holds(fn, cond, uncond, w):
        (eps, values), eps0 = cond.chunk(2, 1), uncond.chunk(2, 1)[0]
        kept = all(relative(fn(cond, uncond, s)[:, eps.shape[1] :], values) < 1e-9 for s in (0.0, 1.0, w))
        return kept and on_the_line(lambda s: fn(cond, uncond, s)[:, : eps.shape[1]], eps, eps0, w)

    check_identity("guided_output", holds)
