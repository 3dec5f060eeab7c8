"""The names of the distributions of a result, and their labels."""

DISTRIBUTIONS = {
    "response": "response",
    "service": "service",
    "first_byte": "first byte",
    "connect": "connect",
    "handshake": "TLS",
    "kernel": "kernel's RTT",
}
