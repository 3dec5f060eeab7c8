"""Counts and distributions that can be added up."""
