"""What a DiT expects of a block: how it takes the condition, which final layer follows, what starts at zero."""

from torch import nn

__all__ = ["Block"]


class Block(nn.Module):
    """Base class of the blocks of a DiT: `block(x, c)` maps tokens (N, T, D) and a condition to tokens (N, T, D).

    A subclass takes `hidden_size, num_heads, mlp_ratio` and declares what follows from its kind of conditioning.

    Attributes:
        takes_tokens: c is the embeddings of t and y side by side, (N, S, D); False: their sum, (N, D)
        joins_sequence: the model appends the embeddings to the image tokens before the first block
        final_layer: layer norm of the final layer: "plain", "adaptive", or "adaptive_zero" (starts at zero)
    """

    takes_tokens = False
    joins_sequence = False
    final_layer = "plain"

    def zero_init(self) -> None:
        "Set to zero what starts at zero. The model calls this after its own initialization."
