/* A minimal echo server for datagrams: a loop of recvfrom and sendto.
 * Listens on a free port of 127.0.0.1 and prints "listening udp://127.0.0.1:PORT".
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    static char buffer[65536];
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("bind");
        return 1;
    }
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("listening udp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        length = sizeof address;
        ssize_t n = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&address, &length);
        if (n >= 0)
            sendto(fd, buffer, n, 0, (struct sockaddr *)&address, length);
    }
}
