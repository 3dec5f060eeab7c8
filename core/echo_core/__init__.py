"""Code that the three commands share: endpoints, units, command-line conventions and logs."""
