"""Grading: programs against cases, and problem packages against their own claims."""
