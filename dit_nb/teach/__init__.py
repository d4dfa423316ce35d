"""Explorers, graders and the classroom."""
