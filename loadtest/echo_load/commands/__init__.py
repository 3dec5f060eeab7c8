"""The commands of `echo-load`, one per module."""
