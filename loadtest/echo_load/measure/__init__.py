"""What is counted and measured, and can be added up."""
