"""The tutorial's stress test without its print: a thread and a blocking socket per connection.

    python tutorial_threads.py PORT CONNECTIONS WARMUP_SECONDS SECONDS

Each thread sends `hello 0`, `hello 1` and so on, and checks nothing. It prints one JSON object: the
messages and seconds measured. No thread sends before all are started, because starting 1000 threads
would otherwise take up to a minute. The warm-up begins when each thread has received a reply.
"""

import json
import os
import socket
import sys
import threading
import time


def sock_conn(port: int, gate: threading.Event, counts: list[int], number: int) -> None:
    client = socket.socket()
    client.connect(("127.0.0.1", port))
    gate.wait()
    count = 0
    while True:
        client.send(("hello %s" % count).encode("utf-8"))  # noqa: UP031 (the tutorial's line)
        data = client.recv(1024)
        if not data:
            # Not in the tutorial: without this, messages that were not echoed would be counted.
            sys.stderr.write("tutorial_threads: the server closed a connection\n")
            os._exit(1)
        count += 1
        counts[number] = count


def main(port: int, connections: int, warmup_seconds: float, seconds: float) -> None:
    gate = threading.Event()
    counts = [0] * connections
    for number in range(connections):
        threading.Thread(target=sock_conn, args=(port, gate, counts, number), daemon=True).start()
    gate.set()
    while not all(counts):
        time.sleep(0.05)

    time.sleep(warmup_seconds)
    before, begin = sum(counts), time.monotonic()
    time.sleep(seconds)
    after, end = sum(counts), time.monotonic()
    print(json.dumps({"messages": after - before, "seconds": end - begin}), flush=True)
    os._exit(0)  # a normal exit would compete with all these threads for the GIL


if __name__ == "__main__":
    _, port, connections, warmup_seconds, seconds = sys.argv
    main(int(port), int(connections), float(warmup_seconds), float(seconds))
