"""Tests of the pages: what they name exists, what they quote is said, and their commands work as printed."""
