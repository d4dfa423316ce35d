"""The four conditioning blocks."""
