"""Interactive explorers, one module per lesson."""
