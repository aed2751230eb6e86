package posterntest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Shell is a running shell, which keeps its directory and variables from one command to
// the next.
type Shell struct {
	t     testing.TB
	in    io.WriteCloser
	lines chan string // what it prints, with the ends of lines
	seen  strings.Builder
}

// Patience is how long one command, or the first words of one that goes on, may take: a
// limit for what hangs, not a measure.
const Patience = 5 * time.Minute

// Shell opens a shell of an account on the machine.
func (m *Machine) Shell(account string) *Shell {
	m.T.Helper()
	home := map[string]string{"root": "/root"}[account]
	if home == "" {
		home = "/home/" + account
	}
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(m.PID), "-m", "-u", "-n", "-p", "--",
		"setpriv", "--reuid="+account, "--regid="+account, "--init-groups",
		"env", "-i", "HOME="+home, "USER="+account, "LANG=C.UTF-8",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"bash", "--noprofile", "--norc", "-c", "cd; exec bash --noprofile --norc")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.T.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		m.T.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		m.T.Fatal(err)
	}
	w.Close()
	s := &Shell{t: m.T, in: in, lines: make(chan string, 10000)}
	go s.read(r)
	m.T.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r.Close()
	})
	return s
}

func (s *Shell) read(r io.Reader) {
	defer close(s.lines)
	for b := bufio.NewReader(r); ; {
		line, err := b.ReadString('\n')
		if line = strings.TrimSuffix(line, "\r\n"); line != "" && err == nil && !strings.HasSuffix(line, "\n") {
			line += "\n" // ssh writes for a terminal
		}
		if line != "" {
			s.lines <- line
		}
		if err != nil {
			return
		}
	}
}

const endMark = "\x1eended "

// Run runs a command and returns what it printed, and its exit code.
func (s *Shell) Run(command string) (string, int) {
	s.t.Helper()
	s.send("{ " + command + "\n} </dev/null; printf '\\n\\036ended %d\\n' $?")
	var out strings.Builder
	for deadline := time.After(Patience); ; {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the shell is gone after %s\n%s", command, out.String())
			}
			if code, found := strings.CutPrefix(line, endMark); found {
				var n int
				if _, err := fmt.Sscan(code, &n); err != nil {
					s.t.Fatal(err)
				}
				return strings.TrimSuffix(strings.TrimSuffix(out.String(), "\n"), "\n"), n
			}
			out.WriteString(line)
		case <-deadline:
			s.t.Fatalf("no end of: %s\n%s", command, out.String())
		}
	}
}

// Start runs a command that goes on, and waits until what it has printed is as shown says.
func (s *Shell) Start(command string, shown func(string) bool) {
	s.t.Helper()
	s.send("exec " + command)
	for deadline := time.After(Patience); !shown(s.seen.String()); {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s ends:\n%s", command, s.seen.String())
			}
			s.seen.WriteString(line)
		case <-deadline:
			s.t.Fatalf("%s does not say what it should, but\n%s", command, s.seen.String())
		}
	}
}

// Printed returns all that the started command has printed by now.
func (s *Shell) Printed() string {
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return s.seen.String()
			}
			s.seen.WriteString(line)
		default:
			return s.seen.String()
		}
	}
}

func (s *Shell) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, text+"\n"); err != nil {
		s.t.Fatal(err)
	}
}
