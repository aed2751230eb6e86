package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/process"
)

// ErrRefused says that sshd does not take the configuration that is in place: it
// would end if it read it, and would not start with it.
var ErrRefused = errors.New("sshd refuses its configuration")

// Service reloads a host's sshd. The zero value is this host's.
type Service struct {
	// Listeners returns the processes that listen; nil asks /proc.
	Listeners func() ([]int, error)
	// Command returns the command that such a process was started with, with what
	// names its configuration, and the configuration's file; nil asks /proc. Test
	// adds -t to it.
	Command func(pid int) (command []string, file string, err error)
	// Signal makes a process read its configuration; nil sends SIGHUP.
	Signal func(pid int) error
	// Listens returns what tells one life of a process from the next, "" while it does
	// not listen; nil is process.Listens.
	Listens func(pid int) string
	// Systemctl runs systemctl and returns what it prints; nil runs this host's,
	// and fails where systemd does not run.
	Systemctl func(ctx context.Context, args ...string) (string, error)
}

// units are the names that distributions give sshd's service.
var units = []string{"ssh.service", "sshd.service"}

// Test fails with [ErrRefused] where an sshd that listens, or one that is to be
// started, would not take the configuration that is in place. Nothing is signalled.
func (s Service) Test(ctx context.Context) error {
	pids, err := s.listeners()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return test(ctx, []string{hostconf.Program}, hostconf.ConfigFile)
	}
	for _, pid := range pids {
		command, file, err := s.command(pid)
		if err != nil {
			command, file = []string{hostconf.Program}, hostconf.ConfigFile
		}
		if err := test(ctx, command, file); err != nil {
			return err
		}
	}
	return nil
}

// Reload makes each sshd that listens read its configuration, once all of them
// would take it: by systemd where that runs it, else by signal. What systemd fails
// to reload is not signalled. When it returns, new connections are served by the
// configuration that is in place. Where none listens there is nothing to do; at boot,
// before sshd starts, systemd is not asked, since it would wait.
func (s Service) Reload(ctx context.Context) error {
	pids, err := s.listeners()
	if err != nil || len(pids) == 0 {
		return err
	}
	if err := s.Test(ctx); err != nil {
		return err
	}
	before := map[int]string{}
	for _, pid := range pids {
		before[pid] = s.listens(pid)
	}
	if err := s.tell(ctx, pids); err != nil {
		return err
	}
	return s.await(ctx, before)
}

// tell has processes read their configuration.
func (s Service) tell(ctx context.Context, pids []int) error {
	for _, unit := range units {
		pid := s.mainPID(ctx, unit)
		if !slices.Contains(pids, pid) {
			continue
		}
		if out, err := s.systemctl(ctx, "reload", unit); err != nil {
			return postern.Errorf(postern.Unavailable, "systemd does not reload %s: %w %s", unit, err, out).
				WithHint("see what is wrong with systemctl status %s; sshd goes on with what it has read", unit)
		}
		pids = slices.DeleteFunc(pids, func(p int) bool { return p == pid })
	}
	for _, pid := range pids {
		if err := s.signal(pid); err != nil {
			return fmt.Errorf("reload sshd: %w", err)
		}
	}
	return nil
}

// How long sshd may take until it listens again, and how often it is looked at.
const (
	reloadTime = 20 * time.Second
	lookAgain  = 10 * time.Millisecond
)

// await waits until each process listens in another life than before. What did not
// listen is not waited for.
func (s Service) await(ctx context.Context, before map[int]string) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	for pid, was := range before {
		for now := was; was != "" && (now == was || now == ""); now = s.listens(pid) {
			select {
			case <-ctx.Done():
				return postern.Errorf(postern.Unavailable,
					"sshd (process %d) does not listen again after it was told to read its configuration", pid).
					WithHint("see what sshd logs")
			case <-time.After(lookAgain):
			}
		}
	}
	return nil
}

// mainPID returns the process of a unit that is active, 0 for none.
func (s Service) mainPID(ctx context.Context, unit string) int {
	if _, err := s.systemctl(ctx, "is-active", "--quiet", unit); err != nil {
		return 0
	}
	out, err := s.systemctl(ctx, "show", "--property=MainPID", "--value", unit)
	pid, perr := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || perr != nil {
		return 0
	}
	return pid
}

// Runs reports whether sshd listens, or systemd does in its place.
func (s Service) Runs(ctx context.Context) bool {
	if pids, err := s.listeners(); err == nil && len(pids) > 0 {
		return true
	}
	_, err := s.systemctl(ctx, "is-active", "--quiet", "ssh.socket")
	return err == nil
}

// test asks sshd whether it would take a configuration.
func test(ctx context.Context, command []string, file string) error {
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), "-t")...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return postern.Errorf(postern.Unavailable, "%s -t: %w", command[0], err)
	}
	e := postern.Errorf(postern.Invalid, "%w: %s", ErrRefused, said)
	if line, ok := (hostconf.Files{}).Blame(file, said); ok {
		return postern.Errorf(postern.Invalid, "%w: %s: %s", ErrRefused, line, said).
			WithHint("change or remove line %d of %s: the first line that sshd reads takes effect", line.Line,
				line.File)
	}
	return e.WithHint("correct what sshd names")
}

func (s Service) listeners() ([]int, error) {
	if s.Listeners != nil {
		return s.Listeners()
	}
	return process.Listeners()
}

func (s Service) command(pid int) (command []string, file string, err error) {
	if s.Command != nil {
		return s.Command(pid)
	}
	return process.Command(process.File(pid, "cmdline"))
}

func (s Service) listens(pid int) string {
	if s.Listens != nil {
		return s.Listens(pid)
	}
	return process.Listens(pid)
}

func (s Service) signal(pid int) error {
	if s.Signal != nil {
		return s.Signal(pid)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGHUP)
}

func (s Service) systemctl(ctx context.Context, args ...string) (string, error) {
	if s.Systemctl != nil {
		return s.Systemctl(ctx, args...)
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "", err // sd_booted(3)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
