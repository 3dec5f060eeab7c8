/* The closed loop over TLS: one thread, one epoll set, and on every connection
 * a window of PIPELINE messages, which leave together as soon as whole messages
 * fit in it. Replies are counted, not checked, and certificates not verified.
 *
 *   tls_loop PORT CONNECTIONS SIZE PIPELINE WARMUP_SECONDS SECONDS
 *
 * Prints "measuring" on standard error when the measured time begins, and at
 * its end one JSON object: messages and seconds of the measured time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, LARGEST = 16384 };

struct connection {
    int fd;
    int wants_to_write;
    SSL *ssl;
    size_t unsent; /* bytes of the window that are not in flight */
    size_t begun;  /* bytes of whole messages that are still to be written */
};

static char messages[LARGEST], replies[LARGEST];
static int set;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void closed(void)
{
    fprintf(stderr, "tls_loop: the server closed a connection\n");
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void open_connection(struct connection *connection, SSL_CTX *context, int port,
                            size_t window)
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
    connection->ssl = SSL_new(context);
    SSL_set_fd(connection->ssl, connection->fd);
    if (SSL_connect(connection->ssl) != 1)
        die("SSL_connect");
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(set, EPOLL_CTL_ADD, connection->fd, &event) < 0)
        die("epoll_ctl");
}

/* Writes whole messages; a full socket buffer is waited for in the epoll set. */
static void fill_window(struct connection *connection, size_t size)
{
    int full = 0;
    connection->begun += connection->unsent / size * size;
    connection->unsent %= size;
    while (connection->begun > 0 && !full) {
        size_t length = connection->begun < LARGEST ? connection->begun : LARGEST;
        int written = SSL_write(connection->ssl, messages, length);
        if (written > 0)
            connection->begun -= written;
        else if (SSL_get_error(connection->ssl, written) == SSL_ERROR_WANT_WRITE)
            full = 1;
        else
            closed();
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
    size_t received = 0;
    int n;
    while ((n = SSL_read(connection->ssl, replies, LARGEST)) > 0)
        received += n;
    if (SSL_get_error(connection->ssl, n) != SSL_ERROR_WANT_READ)
        closed();
    connection->unsent += received;
    return received;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: tls_loop PORT CONNECTIONS SIZE PIPELINE WARMUP_SECONDS SECONDS\n");
        return 2;
    }
    int count = atoi(argv[2]);
    size_t size = strtoul(argv[3], NULL, 10), window = size * strtoul(argv[4], NULL, 10);
    struct connection *connections = calloc(count, sizeof *connections);
    struct epoll_event events[BATCH];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    uint64_t received = 0;

    set = epoll_create1(0);
    if (window < 1 || !connections || set < 0 || !context)
        die("setup");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    memset(messages, 'x', sizeof messages);
    for (int i = 0; i < count; i++)
        open_connection(&connections[i], context, atoi(argv[1]), window);
    for (int i = 0; i < count; i++)
        fill_window(&connections[i], size);

    /* Handshakes are not what is measured here. */
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
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLIN)
                received += receive(connection);
            else if (events[i].events & (EPOLLERR | EPOLLHUP))
                closed();
            fill_window(connection, size);
        }
    }
}
