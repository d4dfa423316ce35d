"""Graders of lesson 33: padding that is filled with anything changes nothing, and closed gates leave the stream as it is."""

import torch

from dit_nb.blocks.adaln import Modulation
from dit_nb.since.mmdit import Stream, joint_attention
from support import relative


def test_words_under_the_mask_do_not_matter_and_the_library_agrees(check_identity):
    def holds(fn, image, text, keep):
        found = fn(image, text, keep)
        noise = torch.randn(text.shape, generator=torch.Generator().manual_seed(0)).to(text.dtype)
        other = fn(image, torch.where(keep[:, None, :, None], text, 10 * noise), keep)
        ours = joint_attention(tuple(image), tuple(text), keep)
        kept = keep[:, None, :, None].expand_as(found[1])
        return (
            relative(other[0], found[0]) < 1e-9
            and relative(other[1][kept], found[1][kept]) < 1e-9
            and all(relative(a, b) < 1e-9 for a, b in zip(found, ours))
        )

    check_identity("two_stream_attention", holds)


def test_the_update_is_that_of_a_stream(check_identity):
    def holds(fn, x, attended, vectors, w_in, w_out):
        width = x.shape[-1]
        stream = Stream(width, 1, w_in.shape[1] / width, qk_norm=False).double()
        with torch.no_grad():
            stream.attn.proj.weight.copy_(torch.eye(width))
            stream.mlp.fc1.weight.copy_(w_in.T)
            stream.mlp.fc2.weight.copy_(w_out.T)
            for layer in (stream.attn.proj, stream.mlp.fc1, stream.mlp.fc2):
                layer.bias.zero_()
            m = [vectors[:, i, None] for i in range(6)]
            ours = stream.update(x, attended[:, None], Modulation(*m[:3]), Modulation(*m[3:]))
        closed = vectors.index_fill(1, torch.tensor([2, 5]), 0.0)
        return relative(fn(x, attended, vectors, w_in, w_out), ours) < 1e-9 and torch.equal(
            fn(x, attended, closed, w_in, w_out), x
        )

    check_identity("stream_update", holds)
