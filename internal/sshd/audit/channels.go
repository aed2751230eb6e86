package audit

import (
	"cmp"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// judgeChannels reports, for each kind of connection whose second factor is a
// ForceCommand, what is open beside it. sshd runs the command for a session's
// shell, command or subsystem, and for nothing else.
func (a *audit) judgeChannels() {
	for _, d := range a.accesses {
		if d.s.is("disableforwarding", "yes") && !d.s.is("permittunnel", "no") && len(d.paths) > 0 {
			a.add(Finding{
				ID: "tunnel-despite-disableforwarding", Severity: Medium,
				Title: "DisableForwarding does not stop ssh -w",
				Where: a.setBy(d, "permittunnel"), Case: d.c.String(),
				Proof: a.ssh(d, d.paths[0], "-N", "-w", "any:any"),
				try:   proveChannel(d, d.paths[0], "Tunnel forwarding", "-v", "-N", "-w", "any:any"),
				Fix:   "PermitTunnel no",
			})
		}
		gate := a.gate(d)
		if gate == nil {
			continue
		}
		for _, p := range d.paths {
			if p.two() {
				continue
			}
			open := a.channelsBeside(d)
			for _, f := range open {
				f.Case = d.c.String()
				if f.Proof == "" {
					f.Proof = a.ssh(d, p, f.try.args...)
				}
				if len(f.try.args) > 0 {
					f.try = proveChannel(d, p, f.try.want, f.try.args...)
				}
				a.add(f)
			}
			if !gate.postern || len(open) > 0 {
				a.add(Finding{
					ID: "forcecommand-factor", Severity: map[bool]Severity{
						true:  Critical,
						false: Medium,
					}[len(open) > 0],
					Title: "ForceCommand is the second factor: sshd has let the client in before it runs",
					Where: a.setBy(d, "forcecommand"), Case: d.c.String(), Proof: a.ssh(d, p, "-N"),
					Fix: "have sshd ask for key and code; where it cannot, Postern's own ForceCommand",
				})
			}
			break
		}
	}
}

// beside returns a finding of a channel that a keyword leaves open; ssh shows it with
// args, by printing want.
func (a *audit) beside(d access, id string, severity Severity, keyword, fix, title, want string,
	args ...string,
) Finding {
	return Finding{
		ID: id, Severity: severity, Title: title, Where: a.setBy(d, keyword), Fix: fix,
		try: probe{args: args, want: want},
	}
}

// channelsBeside returns what a client may open before, or instead of, the
// ForceCommand.
func (a *audit) channelsBeside(d access) []Finding {
	return append(a.forwardingBeside(d), a.sessionsBeside(d)...)
}

// forwardingBeside returns what is forwarded beside the ForceCommand.
func (a *audit) forwardingBeside(d access) (out []Finding) {
	s, tcp := d.s, d.s.first("allowtcpforwarding")
	forwarding := !s.is("disableforwarding", "yes")
	if forwarding && (tcp == "yes" || tcp == "all" || tcp == "local") {
		out = append(out, a.beside(d, "gate-tcp-forwarding", Critical, "allowtcpforwarding", "AllowTcpForwarding no",
			"-L, -D and -W reach the network before the code", "SSH-2.0-", "-W", "127.0.0.1:"+cmp.Or(a.port, "22")))
	}
	if forwarding && (tcp == "yes" || tcp == "all" || tcp == "remote") {
		out = append(out, a.beside(d, "gate-tcp-listening", Critical, "allowtcpforwarding", "AllowTcpForwarding no",
			"-R listens before the code", "Allocated port", "-N", "-R", "127.0.0.1:0:127.0.0.1:9"))
	}
	if forwarding && !s.is("allowstreamlocalforwarding", "no") {
		out = append(out, a.beside(d, "gate-socket-forwarding", Critical,
			"allowstreamlocalforwarding", "AllowStreamLocalForwarding no",
			"-L and -R with Unix sockets reach local services before the code",
			"", "-N", "-L", "/tmp/proof:/run/dbus/system_bus_socket"))
	}
	if forwarding && s.is("allowagentforwarding", "yes") {
		out = append(out, a.beside(d, "gate-agent", High, "allowagentforwarding", "AllowAgentForwarding no",
			"the agent's socket exists before the code", "", "-A"))
	}
	if forwarding && s.is("x11forwarding", "yes") {
		out = append(out, a.beside(d, "gate-x11", High, "x11forwarding", "X11Forwarding no",
			"the X11 listener exists before the code", "", "-X"))
	}
	if !s.is("permittunnel", "no") {
		out = append(out, a.beside(d, "gate-tunnel", Critical, "permittunnel", "PermitTunnel no",
			"-w joins the networks before the code", "Tunnel forwarding", "-v", "-N", "-w", "any:any"))
	}
	return out
}

// shellVariables are those that change what a shell, or what it runs, does.
var shellVariables = []string{"BASH_ENV", "ENV", "LD_PRELOAD", "PATH", "IFS", "SHELLOPTS", "PYTHONPATH", "PERL5OPT"}

// sessionsBeside returns how else a session is used beside the ForceCommand.
func (a *audit) sessionsBeside(d access) (out []Finding) {
	s := d.s
	if !s.is("maxsessions", "1") && !s.is("maxsessions", "0") {
		out = append(out, a.beside(d, "gate-controlmaster", Medium, "maxsessions", "MaxSessions 1",
			"a ControlMaster opens further sessions on a connection whose code is still asked for",
			"", "-M", "-S", "/tmp/proof", "-N"))
	}
	if s.is("permituserrc", "yes") {
		out = append(out, a.beside(d, "gate-userrc", Medium, "permituserrc", "PermitUserRC no",
			"~/.ssh/rc runs before the code", "", "true"))
	}
	if v := s.first("permituserenvironment"); v != "no" && v != "" {
		out = append(out, a.beside(d, "gate-environment", High, "permituserenvironment", "PermitUserEnvironment no",
			"~/.ssh/environment reaches the command that asks for the code", "", "true"))
	}
	for _, name := range strings.Fields(strings.Join(s["acceptenv"], " ")) {
		if matchesAny(name, shellVariables) {
			return append(out, a.beside(d, "gate-environment", High, "acceptenv", "AcceptEnv LANG LC_*",
				"AcceptEnv "+name+" lets the client change what the command that asks for the code runs",
				"", "-o", "SetEnv=BASH_ENV=/dev/fd/0", "true"))
		}
	}
	return out
}

func matchesAny(pattern string, names []string) bool {
	for _, n := range names {
		if hostconf.Wildcard(pattern, n) {
			return true
		}
	}
	return false
}
