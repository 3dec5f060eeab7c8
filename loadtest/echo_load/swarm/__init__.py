"""Locust users, shapes and pages for echo services: load from more than one machine.

Import `locust` before anything else: it patches the process when it is imported.
"""
