"""Attention: plain loops, PyTorch's own versions, and equal results of every implementation."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dit_nb.attention import Attention, CrossAttention, attention, attention_weights
from support import DEVICES, error_cases, raises_input_error, relative


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The function


def attention_loop(q, k, v):
    """(N, h, T, d): one query at a time, by the definition."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    for n in range(q.shape[0]):
        for head in range(q.shape[1]):
            for i in range(q.shape[2]):
                scores = [float(q[n, head, i] @ key) / math.sqrt(q.shape[3]) for key in k[n, head]]
                weights = [math.exp(s - max(scores)) for s in scores]
                for weight, value in zip(weights, v[n, head]):
                    out[n, head, i] += weight / sum(weights) * value
    return out


# N, h, T, S, d: all different; all equal; one of each
@pytest.mark.parametrize("n,h,t,s,d", [(2, 3, 5, 7, 4), (2, 2, 2, 2, 2), (1, 1, 1, 1, 1), (1, 2, 6, 1, 3)])
def test_attention_is_the_loop_over_queries(n, h, t, s, d):
    q, k, v = randn(n, h, t, d), randn(n, h, s, d, seed=1), randn(n, h, s, d, seed=2)
    assert relative(attention(q, k, v), attention_loop(q, k, v)) < 1e-12
    weights = attention_weights(q, k)
    assert relative(weights @ v, attention_loop(q, k, v)) < 1e-12
    assert relative(weights.sum(-1), torch.ones(n, h, t)) < 1e-12


def test_large_scores_do_not_overflow():
    q, k = 1e3 * torch.eye(4)[None, None], torch.eye(4)[None, None]
    assert torch.equal(attention_weights(q, k)[0, 0], torch.eye(4))  # exp(500) is no float32
    assert torch.equal(attention(q, k, k), k)


def formula(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


def test_attention_is_the_formula_forward_and_backward():
    results = []
    for function in (attention, formula):
        q, k, v = (randn(2, 3, 16, 8, seed=i).float().requires_grad_() for i in range(3))
        out = function(q, k, v)
        out.square().sum().backward()
        results.append((out, q.grad, k.grad, v.grad))
    for got, want in zip(*results):
        assert relative(got, want) < 1e-5


def test_forward_mode_derivatives():
    """As of `torch.func.jvp`: the change along a direction, against finite differences."""
    q, k, v = (randn(2, 3, n, 4, seed=i) for i, n in enumerate((5, 7, 7)))
    dq, dk = torch.randn_like(q), torch.randn_like(k)
    out, change = torch.func.jvp(lambda q, k: attention(q, k, v), (q, k), (dq, dk))
    h = 1e-6
    numeric = (attention(q + h * dq, k + h * dk, v) - attention(q - h * dq, k - h * dk, v)) / (2 * h)
    assert relative(out, attention(q, k, v)) < 1e-12 and relative(change, numeric) < 1e-7


# The modules


def heads(x, h):
    """(N, T, D) to (N, h, T, D/h), by slices."""
    size = x.shape[-1] // h
    return torch.stack([x[..., i * size : (i + 1) * size] for i in range(h)], dim=1)


@torch.no_grad()
def test_self_attention_is_the_loop():
    layer, x = Attention(12, 3).double(), randn(2, 5, 12)
    q, k, v = (F.linear(x, w, b) for w, b in zip(layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)))
    mixed = attention_loop(*(heads(a, 3) for a in (q, k, v)))
    want = layer.proj(torch.cat(list(mixed.unbind(1)), dim=-1))
    assert relative(layer(x), want) < 1e-12


def pytorch_attention(x, context, in_weight, in_bias, proj, num_heads):
    """What PyTorch's own multi-head attention returns: tokens, and the weights."""
    q, kv = x.transpose(0, 1), context.transpose(0, 1)
    out, weights = F.multi_head_attention_forward(
        *(q, kv, kv, x.shape[-1], num_heads, in_weight, in_bias, None, None, False, 0.0),
        *(proj.weight, proj.bias),
        average_attn_weights=False,
    )
    return out.transpose(0, 1), weights


@torch.no_grad()
@pytest.mark.parametrize("shape,num_heads", [((3, 3, 12), 3), ((2, 7, 8), 8), ((1, 1, 6), 1)])
def test_self_attention_is_pytorchs(shape, num_heads):
    layer, x = Attention(shape[-1], num_heads).double(), randn(*shape)
    nn.init.normal_(layer.qkv.bias)
    out, weights = pytorch_attention(x, x, layer.qkv.weight, layer.qkv.bias, layer.proj, num_heads)
    assert relative(layer(x), out) < 1e-12
    assert relative(layer.attention_weights(x), weights) < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("queries,keys", [(5, 2), (2, 2), (1, 3), (4, 1)])
def test_cross_attention_is_pytorchs(queries, keys):
    cross, x, context = CrossAttention(12, 3).double(), randn(2, queries, 12), randn(2, keys, 12, seed=1)
    nn.init.normal_(cross.q.bias)
    nn.init.normal_(cross.kv.bias)
    weight, bias = (torch.cat(parts) for parts in zip(*((m.weight, m.bias) for m in (cross.q, cross.kv))))
    out, weights = pytorch_attention(x, context, weight, bias, cross.proj, 3)
    assert relative(cross(x, context), out) < 1e-12
    assert relative(cross.attention_weights(x, context), weights) < 1e-12


@torch.no_grad()
def test_cross_attention_to_a_single_token_returns_its_value():
    cross, x = CrossAttention(16, 2), torch.randn(3, 5, 16)
    context = torch.randn(3, 1, 16)
    assert torch.equal(cross.attention_weights(x, context), torch.ones(3, 2, 5, 1))
    only = cross.proj(cross.kv(context)[..., 16:]).expand(3, 5, 16)
    assert relative(cross(x, context), only) < 1e-5


@torch.no_grad()
def test_shuffled_tokens_give_shuffled_outputs():
    layer, x = Attention(12, 3).double(), randn(2, 5, 12)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert relative(layer(x[:, order]), layer(x)[:, order]) < 1e-12


@torch.no_grad()
def test_bfloat16_attention_is_close_to_pytorchs():
    layer, x = Attention(64, 4), randn(2, 16, 64).float()
    want = pytorch_attention(x, x, layer.qkv.weight, layer.qkv.bias, layer.proj, 4)[0]
    assert relative(layer.bfloat16()(x.bfloat16()).float(), want) < 0.03


@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward_are_the_same_on_every_device(device):
    torch.manual_seed(0)
    layer, results = Attention(64, 4), []
    for place in ("cpu", device):
        layer = layer.to(place)
        layer.zero_grad()
        out = layer(randn(2, 50, 64).float().to(place))
        out.square().sum().backward()
        results.append((out, layer.qkv.weight.grad.clone()))
    for want, got in zip(*results):
        assert got.device.type == device and relative(got, want) < 1e-2  # TF32 has 11 significant bits


@error_cases(
    (partial(Attention, 16, 3), "hidden_size.*16.*num_heads.*3"),
    (partial(Attention, 16, 0), "hidden_size.*16.*num_heads.*0"),
    (partial(CrossAttention, 16, 5), "hidden_size.*16.*num_heads.*5"),
)
def test_errors(call, pattern):
    with raises_input_error(pattern):
        call()
