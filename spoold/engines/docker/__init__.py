"""The engine that is Docker: a container per job, or one after the other."""
