"""The same echo service, a program for each way of serving many connections in Python.

Each listens on a port of 127.0.0.1 that the kernel chooses, says so on standard output in
echo-server's words, and serves until it is ended. What a connection has sent is sent back in order;
a client that shuts down its writing half still gets all of it (RFC 862). What the client does not
read is not read from it either.
"""
