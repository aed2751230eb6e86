package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tracer is a running tracer, or none.
type tracer struct {
	cmd    *exec.Cmd
	detach func() error // of the bare probes, which are of this process
	file   string
	errors bytes.Buffer
}

const script = `usdt:%[1]s:libvirt:rpc_client_msg_rx {
	printf("R client=%%p len=%%d program=%%d version=%%d procedure=%%d type=%%d\n", arg0, arg1, arg2, arg3, arg4, arg5);
}
usdt:%[1]s:libvirt:rpc_client_msg_tx_queue {
	printf("T client=%%p len=%%d program=%%d version=%%d procedure=%%d type=%%d\n", arg0, arg1, arg2, arg3, arg4, arg5);
}
usdt:%[1]s:libvirt:rpc_server_client_msg_rx {
	printf("R server=%%p len=%%d program=%%d version=%%d procedure=%%d type=%%d\n", arg0, arg1, arg2, arg3, arg4, arg5);
}
usdt:%[1]s:libvirt:rpc_server_client_msg_tx_queue {
	printf("T server=%%p len=%%d program=%%d version=%%d procedure=%%d type=%%d\n", arg0, arg1, arg2, arg3, arg4, arg5);
}
`

func (b *bench) start(name string) (*tracer, error) {
	t := &tracer{file: filepath.Join(b.dir, name+".out")}
	switch {
	case name == "untraced":
		return t, nil
	case b.binaries[name] != "":
		t.cmd = exec.Command(b.binaries[name], "trace", "rpc", "-o", t.file)
		if each(b.binaries[name]) {
			t.cmd.Args = append(t.cmd.Args, "--messages")
		}
		t.cmd.Stderr = &t.errors
		return t, t.begin("ready:")
	}
	lib, err := library()
	if err != nil {
		return nil, err
	}
	if name == "bare" {
		t.detach, err = bare(lib)
		return t, err
	}
	t.cmd = exec.Command("bpftrace", "-e", fmt.Sprintf(script, lib))
	out, err := os.Create(t.file)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	t.cmd.Stdout = out
	return t, t.begin("Attaching")
}

// each reports whether a postern shows each message only when it is asked for that, as those
// do that are newer than the flag.
func each(binary string) bool {
	help, err := exec.Command(binary, "trace", "rpc", "--help").CombinedOutput()
	return err == nil && bytes.Contains(help, []byte("--messages"))
}

func library() (string, error) {
	found, err := filepath.Glob("/usr/lib/*/libvirt.so.0")
	if err != nil || len(found) == 0 {
		return "", errors.New("no libvirt.so.0")
	}
	return found[0], nil
}

// begin starts the tracer and returns when it traces: when it has said so, and
// a call of ours has shown up.
func (t *tracer) begin(word string) error {
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer pr.Close()
	if t.cmd.Stderr != nil {
		t.cmd.Stderr = pw
	}
	err = t.cmd.Start()
	pw.Close()
	if err != nil {
		return err
	}
	if word == "ready:" {
		b := make([]byte, 4096)
		n, err := pr.Read(b)
		if err != nil || !bytes.HasPrefix(b[:n], []byte(word)) {
			return fmt.Errorf("does not start: %s", b[:n])
		}
		rest := pr
		fd, err := syscall.Dup(int(rest.Fd()))
		if err != nil {
			return err
		}
		go func() {
			f := os.NewFile(uintptr(fd), "stderr")
			defer f.Close()
			_, _ = t.errors.ReadFrom(f)
		}()
		return nil
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if out, _ := os.ReadFile(t.file); bytes.Contains(out, []byte(word)) {
			time.Sleep(time.Second) // bpftrace says so before it is done
			return nil
		}
	}
	return errors.New("does not start")
}

func (t *tracer) cpu() time.Duration {
	if t.cmd == nil {
		return 0
	}
	return cpuTime(t.cmd.Process.Pid)
}

// stop interrupts the tracer until it ends: bpftrace may ignore the first.
func (t *tracer) stop() error {
	switch {
	case t.detach != nil:
		return t.detach()
	case t.cmd == nil:
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			_ = t.cmd.Process.Signal(os.Interrupt)
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
			}
		}
	}()
	err := t.cmd.Wait()
	cancel()
	<-done
	if _, ok := errors.AsType[*exec.ExitError](err); ok && t.cmd.Path != "" && strings.Contains(t.cmd.Path,
		"bpftrace") {
		return nil
	}
	return err
}

var message = regexp.MustCompile(`(?m)^[0-9:.]+ [<>]S `)

// shown counts the messages of the daemon in the tracer's output, but for those
// of connections being made.
func (t *tracer) shown() int {
	out, err := os.ReadFile(t.file)
	if err != nil {
		return 0
	}
	n := len(message.FindAll(out, -1))
	for _, proc := range []string{".auth_list", ".connect_open"} {
		n -= bytes.Count(out, []byte(proc))
	}
	return n
}

// cpuTime returns the CPU time that a process has used, kernel and user.
func cpuTime(pid int) time.Duration {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err == nil {
			sum += time.Duration(ns)
		}
	}
	return sum
}
