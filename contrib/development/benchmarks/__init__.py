"""What contrib/development/bench measures: spoold's modes and its peers, in turns. ``__main__`` is where to begin."""
