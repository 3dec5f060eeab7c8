"""The hub engine: connections in an epoll set, which gevent's hub watches."""
