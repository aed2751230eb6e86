package cli

import (
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Bounds of the flags. The largest messages and stacks need some room beside each
// other.
const (
	maxPayload = 64 << 10
	minBuffer  = 256 << 10
	maxBuffer  = 1 << 30
)

// config turns the flags into what the session wants.
func (o *traceOptions) config() (capture.Config, error) {
	if o.payload > maxPayload {
		return capture.Config{}, postern.Errorf(postern.Invalid, "--payload %s is more than 64KiB", &o.payload)
	}
	if o.buffer != 0 && (o.buffer < minBuffer || o.buffer > maxBuffer) {
		return capture.Config{}, postern.Errorf(postern.Invalid, "--buffer %s is not between 256KiB and 1GiB", &o.buffer).
			WithHint("4MiB, the default, holds some 15000 messages, and stays in the processor's cache")
	}
	if o.slow < 0 || o.slower < 0 {
		return capture.Config{}, postern.Errorf(postern.Invalid, "--slow and --slower are not negative")
	}
	f, err := o.filter()
	if err != nil {
		return capture.Config{}, err
	}
	c := capture.Config{What: o.what, Paths: o.paths, Stack: o.stack, Filter: f, Buffer: int(o.buffer), Payload: int(o.payload)}
	if o.payload == 0 {
		c.Payload = -1
	}
	c.Queue = o.json || format.Format(o.format) == format.JSON // text shows it with the tree
	switch o.with {
	case "":
	case "qemu":
		c.What |= capture.Monitor
		c.Tree, c.Queue = true, true
	default:
		return c, postern.Errorf(postern.Invalid, "--with %s: only qemu can be shown with RPC", o.with)
	}
	for i, p := range c.Paths {
		if c.Paths[i], err = filepath.EvalSymlinks(p); err != nil {
			return c, postern.Errorf(postern.NotFound, "%w", err)
		}
	}
	return c, nil
}

func (o *traceOptions) filter() (correlate.Filter, error) {
	f := correlate.Filter{Domains: o.domains, Slower: o.slower, Errors: o.failed, Slow: o.slow}
	var err error
	for _, s := range o.pids {
		pid, err := strconv.ParseUint(s, 10, 31)
		if err != nil || pid == 0 {
			return f, postern.Errorf(postern.Invalid, "--pid %s: not a process number", s)
		}
		f.PIDs = append(f.PIDs, int(pid))
	}
	for _, s := range o.clients {
		client, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64)
		if err != nil {
			return f, postern.Errorf(postern.Invalid, "--connection %s: not an address such as 0x55d0c8a2e010", s)
		}
		f.Clients = append(f.Clients, client)
	}
	for _, name := range o.users {
		f.Users = append(f.Users, name)
		if u, err := user.Lookup(name); err == nil {
			f.Users = append(f.Users, u.Uid)
		} else if _, err := strconv.ParseUint(name, 10, 32); err != nil {
			o.unknownUsers = append(o.unknownUsers, name)
		}
	}
	if f.Types, err = bits("--type", o.types, map[string]uint32{"call": 1<<0 | 1<<4, "reply": 1<<1 | 1<<5, "event": 1 << 2, "message": 1 << 2, "stream": 1 << 3, "hole": 1 << 6}); err != nil {
		return f, err
	}
	if f.Statuses, err = bits("--status", o.statuses, map[string]uint32{"ok": 1, "error": 2, "continue": 4}); err != nil {
		return f, err
	}
	f.Procedures, err = libvirt.Procedures(o.programs, o.procedures)
	return f, err
}

// bits turns words into a set.
func bits(flag string, words []string, known map[string]uint32) (uint32, error) {
	var set uint32
	for _, w := range words {
		bit, ok := known[w]
		if !ok {
			var names []string
			for n := range known {
				names = append(names, n)
			}
			slices.Sort(names)
			return 0, postern.Errorf(postern.Invalid, "%s %s: there are %s", flag, w, strings.Join(names, ", "))
		}
		set |= bit
	}
	return set, nil
}
