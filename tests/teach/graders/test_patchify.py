"""Graders of patchify: PyTorch's own patches and convolution, and the way back, for an unknown order, too."""

import torch
import torch.nn.functional as F

from dit_nb.teach.graders.framework.core import all_exercises

PATCHIFY = all_exercises()["patchify"].oracle


def test_tokens_are_unfolded_patches_with_channels_last(check_identity):
    def holds(fn, images, patch_size):
        n, c = images.shape[:2]
        patches = F.unfold(images, patch_size, stride=patch_size).reshape(n, c, patch_size**2, -1)
        return torch.equal(fn(images, patch_size), patches.permute(0, 3, 2, 1).flatten(2))

    check_identity("patchify", holds)


def test_unpatchify_is_the_inverse(check_identity):
    def holds(fn, tokens, grid, patch_size):
        images = fn(tokens, grid, patch_size)
        size = [n * patch_size for n in grid]
        return [*images.shape[2:]] == size and torch.equal(PATCHIFY(images, patch_size), tokens)

    check_identity("unpatchify", holds)


def test_the_matrix_does_to_tokens_what_the_convolution_does_to_images(check_identity):
    def holds(fn, weight):
        p = weight.shape[-1]
        images = torch.randn(2, weight.shape[1], 2 * p, 3 * p, generator=torch.manual_seed(0)).double()
        convolved = F.conv2d(images, weight, stride=p).flatten(2).mT
        return torch.allclose(PATCHIFY(images, p) @ fn(weight).T, convolved, rtol=0, atol=1e-12)

    check_identity("conv_to_linear", holds)


def test_the_cut_makes_the_same_tokens_of_the_images_again(check_identity):
    def holds(fn, cut, tokens, shape):
        images = fn(cut, tokens, shape)
        return images.shape == (len(tokens), *shape) and torch.equal(cut(images), tokens)

    check_identity("undo_cut", holds)
