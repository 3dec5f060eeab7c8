"""The command line: option types, settings, programs, and what they refuse."""
