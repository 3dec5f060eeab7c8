/* The generator of connection churn: one thread, one epoll set, and a number of
 * slots. In each slot a connection is opened, exchanges one message, is closed,
 * and is replaced by a new one.
 *
 *   connect_cycles PORT SLOTS SIZE WARMUP_SECONDS SECONDS
 *
 * Prints "measuring" on standard error when the measured time begins, and at
 * its end one JSON object: messages (which are cycles here) and seconds of the
 * measured time. Connections come from many addresses of 127.0.0.0/8 in turn,
 * because ports of a closed connection stay taken for a while (TIME_WAIT).
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

enum { BATCH = 256, LARGEST = 1 << 16, SOURCES = 250 };

struct slot {
    int fd;
    int connected;
    size_t missing; /* bytes of the reply still to come */
};

static char message[LARGEST], reply[LARGEST];
static struct sockaddr_in target = {.sin_family = AF_INET};
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

static void open_connection(struct slot *slot)
{
    static unsigned turn;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = slot};
    int one = 1;

    source.sin_addr.s_addr = htonl(0x7f000100 + 1 + turn++ % SOURCES);
    slot->connected = 0;
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (slot->fd < 0)
        die("socket");
    setsockopt(slot->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(slot->fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("bind");
    if (connect(slot->fd, (struct sockaddr *)&target, sizeof target) < 0 && errno != EINPROGRESS)
        die("connect");
    if (epoll_ctl(set, EPOLL_CTL_ADD, slot->fd, &event) < 0)
        die("epoll_ctl");
}

static void send_message(struct slot *slot, size_t size)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = slot};

    if (send(slot->fd, message, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send");
    slot->connected = 1;
    slot->missing = size;
    if (epoll_ctl(set, EPOLL_CTL_MOD, slot->fd, &event) < 0)
        die("epoll_ctl");
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: connect_cycles PORT SLOTS SIZE WARMUP_SECONDS SECONDS\n");
        return 2;
    }
    int count = atoi(argv[2]);
    size_t size = strtoul(argv[3], NULL, 10);
    double begin = now() + atof(argv[4]), end = begin + atof(argv[5]), started = 0;
    struct slot *slots = calloc(count, sizeof *slots);
    struct epoll_event events[BATCH];
    uint64_t cycles = 0;

    set = epoll_create1(0);
    if (size < 1 || size > LARGEST || !slots || set < 0)
        die("setup");
    target.sin_port = htons(atoi(argv[1]));
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(message, 'x', size);
    for (int i = 0; i < count; i++)
        open_connection(&slots[i]);
    for (;;) {
        double instant = now();
        if (!started && instant >= begin) {
            started = instant;
            cycles = 0;
            fprintf(stderr, "measuring\n");
        }
        if (instant >= end) {
            printf("{\"messages\": %llu, \"seconds\": %.6f}\n", (unsigned long long)cycles,
                   instant - started);
            return 0;
        }
        int ready = epoll_wait(set, events, BATCH, 100);
        for (int i = 0; i < ready; i++) {
            struct slot *slot = events[i].data.ptr;
            if (!slot->connected) {
                send_message(slot, size);
                continue;
            }
            ssize_t n = recv(slot->fd, reply, LARGEST, 0);
            if (n <= 0) {
                fprintf(stderr, "connect_cycles: the server closed a connection\n");
                return 1;
            }
            slot->missing -= n;
            if (slot->missing == 0) {
                cycles++;
                close(slot->fd);
                open_connection(slot);
            }
        }
    }
}
