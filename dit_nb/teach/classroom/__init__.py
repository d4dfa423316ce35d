"""Assignments and their grading with nbgrader."""
