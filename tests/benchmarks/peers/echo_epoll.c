/* The reference of the benchmarks: a minimal single-threaded echo server on
 * epoll.
 *
 *   echo_epoll PORT        (0: any free port)
 *
 * Prints "listening tcp://127.0.0.1:PORT" once it can be connected to.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 256, BACKLOG = 4096, BUFFER = 64 * 1024 };

static char buffer[BUFFER];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int listen_on(int port)
{
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof address;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0)
        die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, length) < 0)
        die("bind");
    if (listen(listener, BACKLOG) < 0)
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("listening tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void accept_all(int listener, int set)
{
    int one = 1;
    for (;;) {
        struct epoll_event event = {.events = EPOLLIN};
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            die("accept4");
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        event.data.fd = fd;
        if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

/* Waits if the socket buffer is full, so that no byte is lost; the benchmark's
 * closed loop never fills it. */
static int send_all(int fd, const char *data, ssize_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN)
                continue;
            return -1;
        }
        data += sent;
        length -= sent;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct epoll_event events[BATCH];
    int listener, set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};

    if (argc != 2) {
        fprintf(stderr, "usage: echo_epoll PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    listener = listen_on(atoi(argv[1]));
    event.data.fd = listener;
    if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");

    for (;;) {
        int ready = epoll_wait(set, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(listener, set);
                continue;
            }
            ssize_t received = recv(fd, buffer, BUFFER, 0);
            if (received < 0 && errno == EAGAIN)
                continue;
            if (received <= 0 || send_all(fd, buffer, received) < 0)
                close(fd);
        }
    }
}
