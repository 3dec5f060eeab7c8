"""The claims of a tutorial on threads, processes and coroutines, each measured.

Only the command `echo-load lab` imports this.
"""
