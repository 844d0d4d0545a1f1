// Command gowebsocket is gorilla/websocket as a client; what it prints is told in ../common.py.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

type seen = map[string]any

func dial(protocols ...string) *websocket.Conn {
	dialer := websocket.Dialer{Subprotocols: protocols, HandshakeTimeout: 5 * time.Second}
	socket, _, err := dialer.Dial("ws"+strings.TrimPrefix(os.Args[1], "http")+"/ws", nil)
	check(err)
	check(socket.SetReadDeadline(time.Now().Add(5 * time.Second)))
	return socket
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func read(socket *websocket.Conn) []byte {
	_, data, err := socket.ReadMessage()
	check(err)
	return data
}

func echo() seen {
	socket := dial("a", "echo")
	defer socket.Close()
	check(socket.WriteMessage(websocket.TextMessage, []byte("grüße")))
	text := string(read(socket))
	binary := make([]byte, 500_000)
	for i := range binary {
		binary[i] = byte(i % 251)
	}
	check(socket.WriteMessage(websocket.BinaryMessage, binary))
	sum := sha256.Sum256(read(socket))
	check(socket.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4002, "enough")))
	_, _, _ = socket.ReadMessage()
	return seen{"protocol": socket.Subprotocol(), "text": text, "sha256": hex.EncodeToString(sum[:])}
}

func ping() seen {
	socket := dial()
	defer socket.Close()
	line := seen{"kind": "PONG"}
	socket.SetPongHandler(func(data string) error {
		line["pong"] = data
		return nil
	})
	check(socket.WriteMessage(websocket.PingMessage, []byte("are you there")))
	check(socket.WriteMessage(websocket.TextMessage, []byte("after")))
	read(socket)
	return line
}

func pinged() seen {
	socket := dial()
	defer socket.Close()
	check(socket.WriteMessage(websocket.TextMessage, []byte("ping me")))
	return seen{"text": string(read(socket))}
}

func closed() seen {
	socket := dial()
	defer socket.Close()
	check(socket.WriteMessage(websocket.TextMessage, []byte("close 4001 bye")))
	_, _, err := socket.ReadMessage()
	var told *websocket.CloseError
	if !errors.As(err, &told) {
		panic(err)
	}
	return seen{"code": told.Code, "reason": told.Text}
}

func tell(name string, do func() seen) {
	var line seen
	func() {
		defer func() {
			if problem := recover(); problem != nil {
				line = seen{"error": fmt.Sprint(problem)}
			}
		}()
		line = do()
	}()
	line["case"] = name
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

func main() {
	tell("websocket", echo)
	tell("websocket-ping", ping)
	tell("websocket-pinged", pinged)
	tell("websocket-closed", closed)
}
