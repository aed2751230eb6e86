package posterntest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// FreePort returns a TCP port on 127.0.0.1 on which nothing listens. No process gets it
// that takes its ports by this package, and Linux gives it to no outgoing connection:
// those have ports from 32768 on (ip_local_port_range in ip(7)).
func FreePort(t testing.TB) int {
	t.Helper()
	ports, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// FreePorts returns n ports as [FreePort] does, for programs that are no tests.
func FreePorts(n int) (ports []int, err error) {
	for range 10_000 {
		if len(ports) == n {
			return ports, nil
		}
		if port := 10_000 + rand.IntN(22_000); takePort(port) {
			ports = append(ports, port)
		}
	}
	return nil, errors.New("no port is free on 127.0.0.1")
}

// taken are abstract Unix sockets, one a port that this process took. The kernel
// closes them when it ends.
var taken struct {
	sync.Mutex
	ports []net.Listener
}

// takePort takes a port for this process, unless another process has it.
func takePort(port int) bool {
	mark, err := net.Listen("unix", fmt.Sprintf("@postern-test-port-%d", port))
	if err != nil {
		return false
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		mark.Close()
		return false
	}
	l.Close()
	taken.Lock()
	defer taken.Unlock()
	taken.ports = append(taken.ports, mark)
	return true
}
