"""MM-DiT: two streams, of image and text, with joint attention, and a text-to-image model made of it (SD3)."""

__all__ = ["JointBlock", "MMDiT", "MMDiTConfig", "Stream", "joint_attention"]

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dit_nb.attention import Attention
from dit_nb.blocks.adaln import AdaLNModulation, Modulation, modulate, modulations
from dit_nb.blocks.adaln_zero import zero_
from dit_nb.blocks.base import Mlp
from dit_nb.conditioning import TimestepEmbedder
from dit_nb.config import DiTConfig, _document_fields
from dit_nb.errors import UserError, _check_flag, _check_names, _check_number, _shown
from dit_nb.model import DiT, FinalLayer, _check_inputs, _init_weights
from dit_nb.patchify import PatchEmbed, unpatchify
from dit_nb.positions import sincos_2d
from dit_nb.since.text import Text, TextEncoder, Vocabulary, _check_ids, masked_attention


def joint_attention(image: tuple, text: tuple, keep: Tensor) -> tuple[Tensor, Tensor]:
    """One attention over the tokens of two streams (SD3, section 4).

    Args:
        image: queries, keys and values of T image tokens, (N, h, T, d) each
        text: queries, keys and values of S text tokens, (N, h, S, d) each
        keep: text tokens that are no padding, (N, S) bool

    Returns:
        results of the image tokens (N, h, T, d) and of the text tokens (N, h, S, d)
    """
    tokens, words = image[0].shape[2], text[0].shape[2]
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(image, text))  # (N, h, T+S, d): image first
    keep = torch.cat([keep.new_ones(len(keep), tokens), keep], dim=1)  # (N, T+S)
    return masked_attention(q, k, v, keep).split([tokens, words], dim=2)


class Stream(nn.Module):
    """The weights that one stream has in a joint block: modulation, attention projections, MLP.

    Args:
        hidden_size: width of a token, D
        num_heads: attention heads, h
        mlp_ratio: hidden width of the MLP, in units of hidden_size
        qk_norm: normalize queries and keys of each head (RMSNorm with a learned scale)
        pre_only: only give queries, keys and values to the attention: the text stream of the last block
    """

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_ratio: float, qk_norm: bool, pre_only: bool = False
    ):
        super().__init__()
        self.pre_only = pre_only
        self.norm1 = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(hidden_size, num_heads)
        norm = lambda: nn.RMSNorm(hidden_size // num_heads, eps=1e-6) if qk_norm else nn.Identity()  # noqa: E731
        self.norm_q, self.norm_k = norm(), norm()
        self.adaLN_modulation = AdaLNModulation(hidden_size, 2 if pre_only else 6)
        if pre_only:
            self.attn.proj = nn.Identity()  # nothing leaves this stream
            return
        self.norm2 = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(hidden_size, mlp_ratio)

    def modulations(self, c: Tensor) -> list[Modulation]:
        "Shift, scale and gate of attention and MLP, (N, 1, D) each; shift and scale alone if `pre_only`."
        return modulations(self.adaLN_modulation(c), branches=1 if self.pre_only else 2)

    def qkv(self, x: Tensor, msa: Modulation) -> tuple[Tensor, Tensor, Tensor]:
        "Queries, keys and values (N, h, T, d) of tokens (N, T, D)."
        q, k, v = self.attn.qkv_heads(modulate(self.norm1(x), msa.shift, msa.scale))
        return self.norm_q(q), self.norm_k(k), v

    def update(self, x: Tensor, attended: Tensor, msa: Modulation, mlp: Modulation) -> Tensor:
        "Add the results of attention (N, h, T, d), then those of the MLP, to tokens (N, T, D)."
        x = x + msa.gate * self.attn.proj(rearrange(attended, "n h t d -> n t (h d)"))  # (N, T, D)
        return x + mlp.gate * self.mlp(modulate(self.norm2(x), mlp.shift, mlp.scale))  # (N, T, D)


class JointBlock(nn.Module):
    """The block of MM-DiT: image and text have weights of their own, and one attention (SD3, figure 2).

    Args:
        hidden_size: width of a token of either stream, D
        num_heads: attention heads, h
        mlp_ratio: hidden width of the MLPs, in units of hidden_size
        qk_norm: normalize queries and keys of each head
        context_pre_only: the text ends here: it gives queries, keys and values, and is not updated
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qk_norm: bool = True,
        context_pre_only: bool = False,
    ):
        super().__init__()
        self.context_pre_only = context_pre_only
        self.image = Stream(hidden_size, num_heads, mlp_ratio, qk_norm)
        self.text = Stream(hidden_size, num_heads, mlp_ratio, qk_norm, context_pre_only)

    def zero_init(self) -> None:
        "Set all shifts, scales and gates to zero: the block starts as the identity, for both streams."
        zero_(self.image.adaLN_modulation[-1])
        zero_(self.text.adaLN_modulation[-1])

    def forward(self, x: Tensor, context: Tensor, c: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Update image tokens (N, T, D) and text tokens (N, S, D).

        Args:
            x: image tokens
            context: text tokens
            c: condition of both streams, from the time and the pooled text, (N, D)
            keep: text tokens that are no padding, (N, S) bool
        """
        for_image, for_text = self.image.modulations(c), self.text.modulations(c)
        attended_x, attended_text = joint_attention(
            self.image.qkv(x, for_image[0]), self.text.qkv(context, for_text[0]), keep
        )
        x = self.image.update(x, attended_x, *for_image)  # (N, T, D)
        if not self.context_pre_only:
            context = self.text.update(context, attended_text, *for_text)  # (N, S, D)
        return x, context


@_document_fields
@dataclass(frozen=True)
class MMDiTConfig(DiTConfig):
    "Settings that fix the shape of an MM-DiT: those of a DiT, which has no classes here, and those of the text."

    in_channels: int = 3  # channels of the image or latent, C
    num_classes: int = 0  # no classes: the condition is a text
    learn_sigma: bool = False  # the output is the velocity alone
    vocabulary: tuple[str, ...] = ()  # words that have an id, from 2 up; empty: texts come encoded
    text_length: int = 16  # largest number of words of a text, L
    text_depth: int = 2  # transformer blocks of the text encoder
    text_width: int = 128  # width of an encoded word, W; a multiple of num_heads
    pooled_width: int = 128  # width of the pooled vector, P; text_width unless texts come encoded
    qk_norm: bool = True  # normalize queries and keys (RMSNorm per head)

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.vocabulary, list):  # JSON gives lists back
            object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        _check_names("vocabulary", self.vocabulary)
        for name in ("text_length", "text_depth", "text_width", "pooled_width"):
            _check_number(name, getattr(self, name), int)
        _check_flag("qk_norm", self.qk_norm)
        wanted = {"num_classes": 0, "block": "adaln_zero"}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise UserError(
                    f"{name} is {_shown(getattr(self, name))}, but must be {value!r} for an MM-DiT."
                )
        if self.vocabulary and (self.text_width % self.num_heads or self.pooled_width != self.text_width):
            raise UserError(
                f"text_width is {self.text_width}, but must be a multiple of num_heads {self.num_heads} "
                f"and equal to pooled_width {self.pooled_width}."
            )


class MMDiT(DiT):
    """A text-to-image DiT: `MMDiT(config)(x, t, y)` predicts the velocity at x, given a text (SD3, section 4).

    Args:
        config: settings that fix the shape of the model

    Attributes:
        null_class: id whose row is the null text, 0; None without `class_dropout_prob`: no guidance
        takes_y: whether `forward` needs y, the ids of a text
        gradient_checkpointing: set to True to use less memory in training, at the cost of one more forward pass
    """

    def __init__(self, config: MMDiTConfig, y_embedder: nn.Module | None = None):
        nn.Module.__init__(self)  # not that of DiT, which would build the network of a DiT
        if not isinstance(config, MMDiTConfig):
            raise UserError(f"config is {type(config).__name__}, but must be an MMDiTConfig.")
        self.config, self.gradient_checkpointing = config, False
        self.grid, self.image_shape, width = config.grid, config.image_shape, config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, width)
        self.pos_embed = nn.Parameter(sincos_2d(self.grid, width).float()[None], requires_grad=False)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = y_embedder or _make_encoder(config)
        self.takes_y, self.null_class = True, getattr(self.y_embedder, "null_class", None)
        self.context_embedder = nn.Linear(config.text_width, width)
        self.pooled_embedder = nn.Sequential(
            nn.Linear(config.pooled_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        last = config.depth - 1
        self.blocks = nn.ModuleList(
            JointBlock(width, config.num_heads, config.mlp_ratio, config.qk_norm, context_pre_only=i == last)
            for i in range(config.depth)
        )
        self.final_layer = FinalLayer(width, config.patch_size**2 * config.out_channels, "adaptive_zero")
        _init_weights(self)
        _init_pooled(self)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Return the ids (N, L) of N prompts, to be used as y.

        Raises:
            UserError: if a prompt is too long, or has a word that the model does not know; it names similar ones
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        ids = Vocabulary(self.config.vocabulary).encode(prompts, self.config.text_length, strict=True)
        return ids.to(self.pos_embed.device)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, drop: Tensor | None = None) -> Tensor:
        """Predict the velocity of noisy images.

        Args:
            x: (N, C, H, W) noisy images or latents
            t: (N,) times from 0, no noise, to 1000: 1000 times the flow time; may be floats
            y: (N, L) ids of a text, see `encode_text`; a row of zeros is the null text
            drop: (N,) bool, True replaces the text by the null text; default: at random in train() mode,
                with probability `class_dropout_prob`, and never in eval() mode

        Returns:
            (N, C, H, W) predicted velocity

        Raises:
            UserError: if an argument is missing, or has a wrong shape, type, range or device
        """
        _check_inputs(self, x, t, y, drop)
        if isinstance(self.y_embedder, TextEncoder):
            _check_ids(y, x.shape[0], self.y_embedder)
        if drop is None and self.training and self.null_class is not None:
            drop = torch.rand(x.shape[0], device=x.device) < self.config.class_dropout_prob
        return self.predict(x, t, self.y_embedder(y, drop))

    def predict(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        "Predict the velocity, given an encoded text: `forward` without the encoder."
        c = self.t_embedder(t) + self.pooled_embedder(text.pooled)  # (N, D)
        return self._denoise(x, c, self.context_embedder(text.tokens), text.keep)

    def _denoise(self, x: Tensor, c: Tensor, context: Tensor, keep: Tensor) -> Tensor:
        "Map noisy images (N, C, H, W), their condition (N, D) and text tokens (N, S, D) to (N, C, H, W)."
        x = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed  # (N, T, D)
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            args = (x, context, c, keep)  # (N, T, D), (N, S, D), (N, D), (N, S)
            x, context = checkpoint(block, *args, use_reentrant=False) if recompute else block(*args)
        x = self.final_layer(x, c)  # (N, T, p*p*C)
        return unpatchify(x, self.grid, self.config.patch_size)  # (N, C, H, W)


def _init_pooled(model: MMDiT) -> None:
    "Initialize the MLP of the pooled text as that of the time is."
    first, second = model.pooled_embedder[0], model.pooled_embedder[2]
    paper = model.config.init == "paper"
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.normal_(first.weight, std=0.02 if paper else 1.4 / first.in_features**0.5)
    if paper:
        nn.init.normal_(second.weight, std=0.02)


def _make_encoder(config: MMDiTConfig) -> TextEncoder | None:
    "Text encoder of a model with a vocabulary."
    if not config.vocabulary:
        return None
    size, null = len(config.vocabulary) + 2, 0 if config.class_dropout_prob else None
    return TextEncoder(size, config.text_width, config.text_length, config.text_depth, config.num_heads, null)
