"""Grading: programs against cases, and problem packages against what they say of themselves."""
