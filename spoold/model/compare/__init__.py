"""Tells whether a case's output is right (``walk``), by a client's ``rules``, and if not, where (``excerpts``)."""
