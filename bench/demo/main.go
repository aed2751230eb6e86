// Command demo shows what postern trace sees: it starts a libvirtd of its own
// with a virtual machine, asks it a few things with virsh, and prints what
// tracing shows of them. It needs root, libvirt and QEMU.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

func main() {
	binary := flag.String("postern", "bin/postern", "the postern to run")
	flag.Parse()
	signal.Ignore(syscall.SIGPIPE) // the reader may end first: what was started is still stopped
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *binary, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run traces while virsh asks. The arguments replace those of postern trace.
func run(ctx context.Context, binary string, args []string) error {
	if os.Geteuid() != 0 {
		return errors.New("tracing needs root: sudo make demo-trace")
	}
	ports, err := posterntest.FreePorts(2)
	if err != nil {
		return err
	}
	l, err := posterntest.RunLibvirtd(ports[0], ports[1])
	if err != nil {
		return err
	}
	defer l.Stop()
	if len(args) == 0 {
		args = []string{"rpc", "--with", "qemu"}
	}
	tracer := exec.CommandContext(ctx, binary, append([]string{"trace"}, args...)...)
	tracer.Cancel = func() error { return tracer.Process.Signal(syscall.SIGINT) }
	tracer.WaitDelay = 5 * time.Second
	tracer.Stdout, tracer.Stderr = os.Stdout, os.Stderr
	if err := tracer.Start(); err != nil {
		return err
	}
	pause(ctx, 2*time.Second) // until it is ready
	for _, line := range []string{
		"start vm1", "domname vm1", "dominfo vm1", "suspend vm1", "resume vm1",
		"domname nosuchvm", "destroy vm1",
	} {
		fmt.Printf("\n$ virsh %s\n", line)
		out, err := exec.CommandContext(ctx, "virsh", append([]string{"-c", l.TCPURI()}, strings.Fields(line)...)...).
			CombinedOutput()
		if err != nil && ctx.Err() != nil {
			break
		}
		fmt.Print(string(out))
		pause(ctx, 300*time.Millisecond)
	}
	if err := tracer.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	return tracer.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
