"""Judges: what explains a file, by where it lies. Each knows one kind of thing; ``check`` asks the right one."""
