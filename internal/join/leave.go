package join

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/sshd/setup"
)

// Leave undoes joining: sshd gets back what it had, and the host's key and certificate are
// removed. The server is not asked: remove the host there. A call that was killed is
// completed by the next.
func (h Host) Leave(ctx context.Context) (State, error) {
	s, err := h.State()
	if err != nil {
		return s, err
	}
	h.stopAgent(ctx)
	before, err := h.before()
	if err != nil {
		return s, err
	}
	files, err := setup.WithoutHost(h.Root, before)
	if err != nil {
		return s, err
	}
	h.next()
	if len(files) > 0 {
		if _, err := h.SSHD.Keep(ctx, files); err != nil {
			return s, err
		}
	}
	errs := []error{h.writeKnownHosts("")}
	for _, file := range []string{
		agentDir + "/checkpoint", agentDir + "/rescue.json", // another server's are others
		RootFile, CertFile, KeyFile, beforeFile, unreadSSHD, unreadLibvirt, stateFile, // the state last
	} {
		h.next()
		errs = append(errs, durable.Remove(h.path(file)))
	}
	_ = os.Remove(h.path(dir)) // unless others put files there
	return s, errors.Join(errs...)
}

// The service of the agent, and the directory in which it remembers the server's timeline
// and the host's rescue codes.
const (
	agentUnit = "postern-agent.service"
	agentDir  = "/var/lib/postern-agent"
)

// startAgent starts the agent where systemd runs it, and says what was done.
func (h Host) startAgent(ctx context.Context) string {
	if _, err := systemctl(ctx, h.Root, "cat", agentUnit); err != nil {
		return "the agent is not started: systemd has no " + agentUnit
	}
	if out, err := systemctl(ctx, h.Root, "enable", "--now", agentUnit); err != nil {
		return "the agent does not start: " + out
	}
	if out, err := systemctl(ctx, h.Root, "restart", agentUnit); err != nil {
		return "the agent does not start: " + out
	}
	return "the agent runs"
}

func (h Host) stopAgent(ctx context.Context) {
	_, _ = systemctl(ctx, h.Root, "disable", "--now", agentUnit) // it may not be there
}

// systemctl runs systemctl where systemd runs this host.
func systemctl(ctx context.Context, root string, args ...string) (string, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil || root != "" {
		return "", errors.ErrUnsupported
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
