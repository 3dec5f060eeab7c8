"""Counts and distributions, which can be added over stages and generators."""
