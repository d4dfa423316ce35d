"""Assignments and grading with nbgrader."""
