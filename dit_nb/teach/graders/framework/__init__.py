"""What the graders share: exercises, limits, outcomes, reports."""
