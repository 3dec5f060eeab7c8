"""Engines, which drive the connections of a generator."""
