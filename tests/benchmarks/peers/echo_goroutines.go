// An echo server with a goroutine for each connection, as one writes it in Go.
// Listens on a free port of 127.0.0.1 and prints "listening tcp://127.0.0.1:PORT".
package main

import (
	"fmt"
	"log"
	"net"
)

func echo(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, 8192)
	for {
		received, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:received]); err != nil {
			return
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening tcp://%s\n", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go echo(connection)
	}
}
