"""The hub engine: connections in an epoll set on gevent's hub."""
