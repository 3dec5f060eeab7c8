/* A closed loop with many messages in flight: one thread, one epoll set, and on
 * every connection a window of PIPELINE messages, which are sent as one run of
 * bytes as soon as the window has space. Replies are counted, not checked.
 *
 *   pipelined_loop PORT CONNECTIONS SIZE PIPELINE WARMUP_SECONDS SECONDS
 *
 * Prints "measuring" on standard error when the measured time begins, and at
 * its end one JSON object: messages and seconds of the measured time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, BUFFER = 256 * 1024 };

struct connection {
    int fd;
    int wants_to_write;
    size_t unsent; /* bytes of the window that are not in flight */
};

static char messages[BUFFER], replies[BUFFER];
static int set;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void open_connection(struct connection *connection, int port, size_t window)
{
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    int one = 1;

    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->unsent = window;
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0)
        die("socket");
    if (connect(connection->fd, (struct sockaddr *)&target, sizeof target) < 0)
        die("connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(set, EPOLL_CTL_ADD, connection->fd, &event) < 0)
        die("epoll_ctl");
}

/* Sends as much as the window allows; waits in the epoll set if the socket buffer is full. */
static void fill_window(struct connection *connection)
{
    int full = 0;
    while (connection->unsent > 0 && !full) {
        size_t length = connection->unsent < BUFFER ? connection->unsent : BUFFER;
        ssize_t sent = send(connection->fd, messages, length, MSG_NOSIGNAL);
        if (sent >= 0)
            connection->unsent -= sent;
        else if (errno == EAGAIN)
            full = 1;
        else
            die("send");
    }
    if (full != connection->wants_to_write) {
        struct epoll_event event = {.events = EPOLLIN | (full ? EPOLLOUT : 0),
                                    .data.ptr = connection};
        if (epoll_ctl(set, EPOLL_CTL_MOD, connection->fd, &event) < 0)
            die("epoll_ctl");
        connection->wants_to_write = full;
    }
}

static size_t receive(struct connection *connection)
{
    ssize_t n = recv(connection->fd, replies, BUFFER, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        fprintf(stderr, "pipelined_loop: the server closed a connection\n");
        exit(1);
    }
    connection->unsent += n;
    return n;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: pipelined_loop PORT CONNECTIONS SIZE PIPELINE WARMUP_SECONDS "
                        "SECONDS\n");
        return 2;
    }
    int count = atoi(argv[2]);
    size_t size = strtoul(argv[3], NULL, 10), window = size * strtoul(argv[4], NULL, 10);
    struct connection *connections = calloc(count, sizeof *connections);
    struct epoll_event events[BATCH];
    uint64_t received = 0;

    set = epoll_create1(0);
    if (window < 1 || !connections || set < 0)
        die("setup");
    memset(messages, 'x', sizeof messages);
    for (int i = 0; i < count; i++)
        open_connection(&connections[i], atoi(argv[1]), window);
    for (int i = 0; i < count; i++)
        fill_window(&connections[i]);

    double begin = now() + atof(argv[5]), end = begin + atof(argv[6]), started = 0;
    for (;;) {
        double instant = now();
        if (!started && instant >= begin) {
            started = instant;
            received = 0;
            fprintf(stderr, "measuring\n");
        }
        if (instant >= end) {
            printf("{\"messages\": %llu, \"seconds\": %.6f}\n",
                   (unsigned long long)(received / size), instant - started);
            return 0;
        }
        int ready = epoll_wait(set, events, BATCH, 100);
        for (int i = 0; i < ready; i++) {
            if (events[i].events & EPOLLIN)
                received += receive(events[i].data.ptr);
            else if (events[i].events & (EPOLLERR | EPOLLHUP))
                die("connection");
            fill_window(events[i].data.ptr);
        }
    }
}
