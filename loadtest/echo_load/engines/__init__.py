"""Engines: the ways in which one generator drives its connections."""
