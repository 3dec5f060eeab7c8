"""Stream connections: accepting, admission, TLS and the echo."""
