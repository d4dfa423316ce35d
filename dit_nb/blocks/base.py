"""What a DiT expects of a block: how it takes the condition, which final layer follows, what starts at zero."""

from torch import nn

__all__ = ["Block"]


class Block(nn.Module):
    """Base class of the blocks of a DiT: `block(x, c)` maps tokens (N, T, D) and a condition to tokens (N, T, D).

    A subclass takes `hidden_size, num_heads, mlp_ratio` and declares what follows from its kind of conditioning.
    """

    takes_tokens = False  # c is t_emb + y_emb, (N, D); if True, the embeddings side by side, (N, S, D)
    joins_sequence = False  # the model appends the embeddings to the image tokens before the first block
    final_layer = "plain"  # layer norm of the final layer: plain, adaptive, or adaptive_zero (starts at zero)

    def zero_init(self) -> None:
        "Set to zero what starts at zero. The model calls this after its own initialization."
