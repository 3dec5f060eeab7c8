"""The names of the distributions that results have, and how people read them."""

DISTRIBUTIONS = {
    "response": "response",
    "service": "service",
    "first_byte": "first byte",
    "connect": "connect",
    "handshake": "TLS",
    "kernel": "kernel's RTT",
}
