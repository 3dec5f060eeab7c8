"""Datagrams, echoed."""
