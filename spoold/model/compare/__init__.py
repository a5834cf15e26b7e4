"""When a case's output is right (``walk``), by rules that a client chooses (``rules``), and where it is not."""
