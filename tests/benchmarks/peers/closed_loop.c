/* The generator of load for echo servers: one thread, one epoll set, and every
 * connection in a closed loop (the next message is sent when the reply to the
 * previous one has arrived). It needs less processor time per message than any
 * server here, so that the server on the other core is the bottleneck.
 *
 *   closed_loop PORT CONNECTIONS SIZE WARMUP_SECONDS SECONDS
 *
 * Prints "measuring" on standard error when the measured time begins, and at
 * its end one JSON object: messages and seconds of the measured time. With
 * SECONDS 0 it opens the connections, makes one round trip on each, prints
 * "open" and keeps them open until its standard input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

enum { BATCH = 256, LARGEST = 1 << 20 };

struct connection {
    int fd;
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

/* Sockets are blocking, so that a large message is sent whole. This cannot
 * deadlock: the server receives while it sends, and the reply fits in the socket
 * buffers. */
static void send_message(struct connection *connection, size_t size)
{
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = send(connection->fd, message + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0)
            die("send");
        sent += n;
    }
    connection->missing = size;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: closed_loop PORT CONNECTIONS SIZE WARMUP_SECONDS SECONDS\n");
        return 2;
    }
    int port = atoi(argv[1]), count = atoi(argv[2]);
    size_t size = strtoul(argv[3], NULL, 10);
    double warmup = atof(argv[4]), seconds = atof(argv[5]);
    struct connection *connections = calloc(count, sizeof *connections);
    struct epoll_event events[BATCH];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int set = epoll_create1(0), one = 1;
    uint64_t messages = 0;

    if (size < 1 || size > LARGEST || !connections || set < 0)
        die("setup");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(message, 'x', size);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        connections[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(connections[i].fd, (struct sockaddr *)&address, sizeof address) < 0)
            die("connect");
        setsockopt(connections[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (epoll_ctl(set, EPOLL_CTL_ADD, connections[i].fd, &event) < 0)
            die("epoll_ctl");
    }
    for (int i = 0; i < count; i++)
        send_message(&connections[i], size);

    int hold = seconds == 0;
    double begin = now() + warmup, end = begin + seconds, started = 0;
    for (;;) {
        double instant = now();
        if (!started && instant >= begin) {
            started = instant;
            messages = 0;
            fprintf(stderr, "measuring\n");
        }
        if (!hold && instant >= end) {
            printf("{\"messages\": %llu, \"seconds\": %.6f}\n", (unsigned long long)messages,
                   instant - started);
            return 0;
        }
        if (hold && messages == (uint64_t)count) {
            printf("open\n");
            fflush(stdout);
            while (getchar() != EOF)
                ;
            return 0;
        }
        int ready = epoll_wait(set, events, BATCH, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            ssize_t n = recv(connection->fd, reply, LARGEST, 0);
            if (n <= 0) {
                fprintf(stderr, "closed_loop: the server closed a connection\n");
                return 1;
            }
            connection->missing -= n;
            if (connection->missing == 0) {
                messages++;
                if (!hold)
                    send_message(connection, size);
            }
        }
    }
}
