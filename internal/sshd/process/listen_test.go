package process_test

import (
	"net"
	"os"
	"testing"

	"github.com/postern-project/postern/internal/sshd/process"
)

func TestListens(t *testing.T) {
	before := process.Listens(os.Getpid())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	one := process.Listens(os.Getpid())
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if again := process.Listens(os.Getpid()); one == "" || one == before || again != one {
		t.Errorf("before %q, with a listener %q, with a connection %q", before, one, again)
	}
	l.Close()
	if after := process.Listens(os.Getpid()); after != before {
		t.Errorf("before %q, after %q", before, after)
	}
	if none := process.Listens(1 << 30); none != "" {
		t.Errorf("a process that is not there: %q", none)
	}
}
