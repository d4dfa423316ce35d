"""Official checkpoints and diffusers, in both directions."""
