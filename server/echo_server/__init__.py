"""The echo service: a monkey-patched gevent StreamServer on an echo set."""
