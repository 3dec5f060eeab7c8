"""Measurements that need many tests or probes: capacity, idle timeout and outages."""
