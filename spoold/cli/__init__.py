"""The command lines: the only part of spoold that talks to people."""
