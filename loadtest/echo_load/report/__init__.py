"""What people see of a test."""
