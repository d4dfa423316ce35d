"""Graders of the condition: parts of rotations, and the number of dropped labels."""

import numpy as np
import torch

from support import relative


def test_channels_are_parts_of_rotations(check_identity):
    """Real parts first; the frequencies fall from 1 to 1 / max_period."""

    def holds(fn, t, dim, max_period):
        frequencies = np.logspace(0, -np.log10(max_period), dim // 2, endpoint=False)
        z = np.exp(1j * np.outer(t, frequencies))
        expected = torch.from_numpy(np.concatenate([z.real, z.imag], axis=1))
        return relative(fn(t, dim, max_period).double(), expected) < 1e-4  # float32 for t up to 999

    check_identity("timestep_embedding", holds)


def test_the_threshold_sets_how_many_labels_are_dropped(check_identity):
    """With the k-th smallest random number as the threshold, k labels are dropped in training, none in eval mode."""

    def holds(fn, y, uniform, dropout_prob, num_classes, training):
        for k, (threshold, place) in enumerate(zip(*uniform.sort())):
            labels = fn(y, uniform, threshold.item(), num_classes, training)
            dropped = labels == num_classes
            if (
                dropped.sum() != k * training
                or dropped[place]
                or not torch.equal(labels[~dropped], y[~dropped])
            ):
                return False
        return True

    check_identity("label_dropout", holds)


def test_sums_are_found_for_any_pair(check_identity):
    """All pairs of two tables come back, in any order, also after a rotation of both, and if the sums are rounded."""

    def holds(fn, c, t_table, y_table):
        pairs = torch.cartesian_prod(torch.arange(len(t_table)), torch.arange(len(y_table)))
        pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))]
        generator = torch.Generator().manual_seed(1)
        turn = torch.linalg.qr(torch.randn(c.shape[1], c.shape[1], generator=generator, dtype=c.dtype)).Q
        for tables in ((t_table, y_table), (t_table @ turn, y_table @ turn)):
            sums = (tables[0][pairs[:, 0]] + tables[1][pairs[:, 1]]) * (1 + 1e-12)
            if not torch.equal(torch.stack(tuple(fn(sums, *tables)), 1), pairs):
                return False
        return True

    check_identity("split_condition", holds)
