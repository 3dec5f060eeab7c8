"""The echo of UDP datagrams."""
