package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"github.com/postern-project/postern/internal/system"
)

// How long an HSM may take for one call. A YubiKey waits 15 seconds for a touch; a
// smart card makes a large RSA key in minutes.
const (
	callLimit     = 30 * time.Second
	generateLimit = 5 * time.Minute
)

// process is this program once more, with a module in it. It is safe for
// concurrent use.
type process struct {
	cmd  *exec.Cmd
	rpc  *rpc.Client
	said *head // on its standard error
	end  sync.Once
}

// start runs the process.
func start() (*process, error) {
	ours, theirs, err := system.SocketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	p := &process{said: &head{}}
	// The program as it runs, also after another one took its place on the disk.
	p.cmd = exec.Command("/proc/self/exe", module.Command)
	p.cmd.Args[0] = "postern"
	p.cmd.ExtraFiles = []*os.File{theirs} // module.Descriptor
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	p.rpc = rpc.NewClient(conn)
	return p, nil
}

var errLate = errors.New("it does not answer in time")

// call asks the process, and ends it if it does not answer in time.
func (p *process) call(method string, args, reply any, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case call := <-p.rpc.Go(method, args, reply, make(chan *rpc.Call, 1)).Done:
		if said, ok := errors.AsType[rpc.ServerError](call.Error); ok {
			return module.Remembered(said)
		}
		if call.Error != nil {
			p.stop()
			return fmt.Errorf("its module ended%s", p.said)
		}
		return nil
	case <-timer.C:
		p.stop()
		return errLate
	}
}

// stop ends the process, and waits for it.
func (p *process) stop() {
	p.end.Do(func() {
		p.rpc.Close()
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
}

// head keeps the beginning of what a program says. It is safe for concurrent
// use.
type head struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	const most = 256
	h.text = append(h.text, b[:min(len(b), most-len(h.text))]...)
	return len(b), nil
}

// String returns the first line, after a colon; "" if there is none.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, _, _ := bytes.Cut(bytes.TrimSpace(h.text), []byte("\n"))
	if len(first) == 0 {
		return ""
	}
	return ": " + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return -1
		}
		return r
	}, string(first))
}
