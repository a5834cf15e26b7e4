"""Tests of the pages: names in them exist, quoted messages are real, and their commands work as printed."""
