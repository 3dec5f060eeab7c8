"""Locust for echo services: users, shapes, and additions to its statistics and pages.

Import `locust` before anything else, because it monkey-patches the process when imported.
"""
