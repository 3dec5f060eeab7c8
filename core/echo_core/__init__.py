"""Shared by server, client and load tester: endpoints, units, command-line conventions, logs."""
