/* A closed loop over TLS: one thread, one epoll set. Certificates are not
 * verified, which does not affect the server.
 *
 *   tls_loop PORT CONNECTIONS SIZE WARMUP_SECONDS SECONDS
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, LARGEST = 16384 };

struct connection {
    int fd;
    SSL *ssl;
    size_t missing; /* bytes of the reply still to come */
};

static char message[LARGEST], reply[LARGEST];

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

static void send_message(struct connection *connection, size_t size)
{
    if (SSL_write(connection->ssl, message, size) != (int)size)
        die("SSL_write");
    connection->missing = size;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: tls_loop PORT CONNECTIONS SIZE WARMUP_SECONDS SECONDS\n");
        return 2;
    }
    int count = atoi(argv[2]), set = epoll_create1(0), one = 1;
    size_t size = strtoul(argv[3], NULL, 10);
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    struct connection *connections = calloc(count, sizeof *connections);
    struct epoll_event events[BATCH];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    uint64_t messages = 0;

    if (size < 1 || size > LARGEST || !connections || set < 0 || !context)
        die("setup");
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        int fd = connections[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&target, sizeof target) < 0)
            die("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connections[i].ssl = SSL_new(context);
        SSL_set_fd(connections[i].ssl, fd);
        if (SSL_connect(connections[i].ssl) != 1)
            die("SSL_connect");
        fcntl(fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
    /* Handshakes are not measured. */
    double begin = now() + atof(argv[4]), end = begin + atof(argv[5]), started = 0;
    for (int i = 0; i < count; i++)
        send_message(&connections[i], size);
    for (;;) {
        double instant = now();
        if (!started && instant >= begin) {
            started = instant;
            messages = 0;
            fprintf(stderr, "measuring\n");
        }
        if (instant >= end) {
            printf("{\"messages\": %llu, \"seconds\": %.6f}\n", (unsigned long long)messages,
                   instant - started);
            return 0;
        }
        int ready = epoll_wait(set, events, BATCH, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            int n;
            while ((n = SSL_read(connection->ssl, reply, LARGEST)) > 0) {
                connection->missing -= n;
                if (connection->missing == 0) {
                    messages++;
                    send_message(connection, size);
                }
            }
            if (SSL_get_error(connection->ssl, n) != SSL_ERROR_WANT_READ) {
                fprintf(stderr, "tls_loop: the server closed a connection\n");
                return 1;
            }
        }
    }
}
