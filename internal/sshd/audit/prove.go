package audit

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// probe is a finding's proof as something to run: ssh with args shows want in
// what it prints. The zero probe cannot be run.
type probe struct {
	user    string
	methods string
	args    []string // of ssh, before the host
	command []string // behind it
	stdin   string
	want    string
	login   bool // it is enough that the command's exit status is 0
}

// proveLogin shows that a path opens a session.
func proveLogin(d access, p path) probe {
	return probe{user: d.c.User, methods: p.preferred(), command: []string{"true"}, login: true}
}

// proveChannel shows that a channel opens.
func proveChannel(d access, p path, want string, args ...string) probe {
	if want == "" {
		return probe{}
	}
	return probe{user: d.c.User, methods: p.preferred(), args: args, want: want}
}

// Prover runs proofs with OpenSSH's client against a local sshd. The proofs are
// harmless: they open a channel and close it.
type Prover struct {
	SSH      []string // the ssh command; empty means ssh
	Host     string   // empty means 127.0.0.1
	Port     string   // empty means what the audit found
	User     string   // empty means the user of each finding
	Identity string   // a private key file that is authorized for the user
}

// Words of Finding.Proved.
const (
	Proved    = "proved"
	NotProved = "not reproduced"
	NotTried  = "not tried"
)

// Prove runs what can be run of the findings' proofs and notes what came out.
func (p Prover) Prove(ctx context.Context, r *Report) {
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.try.user == "" || !strings.HasPrefix(f.try.methods, "publickey") || p.User != "" && p.User != f.try.user {
			f.Proved = NotTried
			continue
		}
		f.Proved = NotProved
		if p.run(ctx, f.try) {
			f.Proved = Proved
		}
	}
}

func (p Prover) run(ctx context.Context, try probe) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	host := p.Host
	if host == "" {
		host = "127.0.0.1"
	}
	args := []string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "ExitOnForwardFailure=yes", "-o", "ConnectTimeout=5", "-o", "PreferredAuthentications=" + try.methods,
	}
	if p.Port != "" {
		args = append(args, "-p", p.Port)
	}
	if p.Identity != "" {
		args = append(args, "-i", p.Identity, "-o", "IdentitiesOnly=yes")
	}
	args = slices.Concat(args, try.args, []string{try.user + "@" + host}, try.command)
	ssh := p.SSH
	if len(ssh) == 0 {
		ssh = []string{"ssh"}
	}
	cmd := exec.CommandContext(ctx, ssh[0], append(slices.Clone(ssh[1:]), args...)...)
	if try.login {
		return cmd.Run() == nil
	}
	if try.stdin != "" {
		in, out, err := os.Pipe() // which stays open: some programs end with their input
		if err != nil {
			return false
		}
		defer in.Close()
		defer out.Close()
		_, _ = out.WriteString(try.stdin)
		cmd.Stdin = in
	}
	// The channel stays open: stop as soon as it shows.
	watch := &until{want: []byte(try.want), stop: cancel}
	cmd.Stdout, cmd.Stderr = watch, watch
	cmd.WaitDelay = time.Second
	_ = cmd.Run()
	return watch.seen
}

// until stops a command when its output holds what was wanted. os/exec writes
// to it from one goroutine, as it is both stdout and stderr.
type until struct {
	want []byte
	stop func()
	tail []byte
	seen bool
}

func (u *until) Write(b []byte) (int, error) {
	u.tail = append(u.tail, b...)
	if bytes.Contains(u.tail, u.want) && !u.seen {
		u.seen = true
		u.stop()
	}
	if n := len(u.tail); n > 1<<16 {
		u.tail = u.tail[n-len(u.want):]
	}
	return len(b), nil
}
