package join

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/host"
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
	if err := h.writeKnownHosts(""); err != nil {
		return s, err
	}
	errs := []error{h.forgetServer()}
	for _, file := range []string{
		RootFile, CertFile, KeyFile, beforeFile, unreadSSHD, unreadLibvirt, stateFile, // the state last
	} {
		h.next()
		errs = append(errs, durable.Remove(h.path(file)))
	}
	_ = os.Remove(h.path(dir)) // unless others put files there
	return s, errors.Join(errs...)
}

// forgetServer removes what the agent keeps of the installation: how far its timeline was, the
// rescue codes that it gave, and what it was told of the audit.
func (h Host) forgetServer() error {
	var errs []error
	for _, name := range []string{"checkpoint", "rescue.json", "audit.last"} {
		h.next()
		errs = append(errs, durable.Remove(h.path(filepath.Join(agentDir, name))))
	}
	return errors.Join(errs...)
}

// leaveOther forgets the installation that the host had joined, if an answer is another's:
// by its timeline the agent would refuse the new server, and it would accept its rescue
// codes still.
func (h Host) leaveOther(ctx context.Context, a host.Answer) error {
	data, err := os.ReadFile(h.path(RootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	before, err := parseChain(data)
	if err != nil {
		return err
	}
	now, err := parseChain([]byte(a.Roots))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(now, func(c *x509.Certificate) bool { return slices.ContainsFunc(before, c.Equal) }) {
		return nil
	}
	h.stopAgent(ctx)
	return h.forgetServer()
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
