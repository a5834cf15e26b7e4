"""Engines: what can carry jobs. Each is a folder, which implements ``sandbox.Sandbox``."""
