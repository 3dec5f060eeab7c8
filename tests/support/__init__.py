"""What the tests share: real processes and servers that misbehave."""
