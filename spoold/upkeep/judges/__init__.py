"""Judges: tell what explains a file, by where it lies. Each knows one kind of file. ``check`` asks the right one."""
