"""What came after the DiT: flow matching, modern blocks, text, guidance and few-step models."""
