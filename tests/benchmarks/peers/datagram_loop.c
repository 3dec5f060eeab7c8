/* The generator of datagrams: a number of sockets in one epoll set, each in a
 * closed loop. A lost datagram is sent again after 100 ms.
 *
 *   datagram_loop PORT SOCKETS SIZE WARMUP_SECONDS SECONDS
 *
 * Prints "measuring" on standard error when the measured time begins, and at
 * its end one JSON object: messages and seconds of the measured time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256, LARGEST = 65507 };

static char message[LARGEST], reply[LARGEST];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: datagram_loop PORT SOCKETS SIZE WARMUP_SECONDS SECONDS\n");
        return 2;
    }
    int count = atoi(argv[2]), set = epoll_create1(0);
    size_t size = strtoul(argv[3], NULL, 10);
    double begin = now() + atof(argv[4]), end = begin + atof(argv[5]), started = 0, checked = 0;
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    struct epoll_event events[BATCH];
    int *sockets = calloc(count, sizeof *sockets);
    double *sent = calloc(count, sizeof *sent);
    uint64_t messages = 0;

    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (connect(sockets[i], (struct sockaddr *)&target, sizeof target) < 0 ||
            epoll_ctl(set, EPOLL_CTL_ADD, sockets[i], &event) < 0) {
            perror("setup");
            return 1;
        }
        send(sockets[i], message, size, 0);
        sent[i] = now();
    }
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
        if (instant - checked > 0.1) {
            checked = instant;
            for (int i = 0; i < count; i++)
                if (instant - sent[i] > 0.1) {
                    send(sockets[i], message, size, 0);
                    sent[i] = instant;
                }
        }
        int ready = epoll_wait(set, events, BATCH, 100);
        for (int i = 0; i < ready; i++) {
            int number = events[i].data.u32;
            if (recv(sockets[number], reply, sizeof reply, 0) != (ssize_t)size)
                continue;
            messages++;
            sent[number] = instant;
            send(sockets[number], message, size, 0);
        }
    }
}
