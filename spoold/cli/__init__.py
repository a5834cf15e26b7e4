"""The command lines: the only rooms that talk to a person."""
