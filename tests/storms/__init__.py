"""A storm over pilots that Slurm starts: all that can be killed is, and each submission gets its one right answer.

``python -m tests.storms`` is contrib/development/storm, and tests/test_storm_slurm.py runs a short one. Theory of
operation: ``field`` is a spool with its daemons and a pool, over a cluster of Slurm's with two nodes. ``blows`` are the
things that happen. ``witness`` looks all the time which pilot holds which attempt. ``verdict`` compares at the end: an
attempt may be lost only with a pilot that could not drain. So a blow that kills says which pilots it dooms.
"""
