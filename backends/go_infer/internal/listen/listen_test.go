package listen

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASocketOfTheDeadIsReplacedAndNothingElseIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	listener, err := Unix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := Unix(path); err == nil || !strings.Contains(err.Error(), "is in use; stop what listens there") {
		t.Errorf("a socket in use: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Unix(file); err == nil || !strings.Contains(err.Error(), "there is something else") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the file was touched: %v", err)
	}
}

func TestAPortInUseIsNamedWithItsFlag(t *testing.T) {
	listener, err := TCP("127.0.0.1", 0, "port")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := TCP("127.0.0.1", listener.Addr().(*net.TCPAddr).Port, "rest_api_port"); err == nil || !strings.HasSuffix(err.Error(), "choose another with --rest_api_port") {
		t.Errorf("got %v", err)
	}
}
