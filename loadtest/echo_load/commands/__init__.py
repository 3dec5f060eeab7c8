"""The commands of `echo-load`, a module each."""
