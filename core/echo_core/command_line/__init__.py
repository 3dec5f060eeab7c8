"""Command-line conventions: option types, settings, exit codes and the checks on arguments."""
