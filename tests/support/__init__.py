"""Helpers that tests share: the commands as processes, misbehaving servers, other programs."""
