"""Benchmarks, studies and the paper's tables."""
