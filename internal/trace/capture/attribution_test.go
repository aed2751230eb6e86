package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
)

// startDomain defines and starts a virtual machine, and destroys it afterwards.
func startDomain(t *testing.T, l *posterntest.Libvirtd, name string) {
	t.Helper()
	if _, err := l.Virsh("dominfo", name); err != nil {
		file := filepath.Join(t.TempDir(), name+".xml")
		if err := os.WriteFile(file, []byte(l.DomainXML(name)), 0o600); err != nil {
			t.Fatal(err)
		}
		posterntest.Virsh(t, l.UnixURI(), "define", file)
	}
	posterntest.Virsh(t, l.UnixURI(), "start", name)
	t.Cleanup(func() { _, _ = l.Virsh("destroy", name) })
}

// TestMonitorCommandsBelongToTheirCalls has 11 clients at once send commands,
// each with a word of its own, through the daemon to three virtual machines,
// among calls that say nothing to QEMU.
func TestMonitorCommandsBelongToTheirCalls(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	domains := []string{"vm1", "vm2", "vm3"}
	for _, d := range domains {
		startDomain(t, l, d)
	}
	const clients, rounds = 11, 12
	c, sum := traced(t, Config{What: RPC | Monitor}, func(l *posterntest.Libvirtd) {
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				if err := converse(l, domains[i%len(domains)], i, rounds); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	if len(sum.Losses) > 0 {
		t.Fatalf("lost %v", sum.Losses)
	}
	right := 0
	for _, e := range c.Of(func(e *event.Event) bool { return e.Kind == event.ServerTx && e.Type == 1 }) {
		word := wordIn(string(e.Call.Args))
		var words []string
		for _, m := range e.Call.Monitor {
			words = append(words, wordIn(m.Text))
			if m.Took <= 0 || !strings.Contains(m.Reply, `"error"`) && word != "" {
				t.Errorf("command %s: answer %q after %v", m.ID, m.Reply, m.Took)
			}
			if word != "" && m.Domain != domainIn(e.Call.Args) {
				t.Errorf("command to %q of a call about %q", m.Domain, domainIn(e.Call.Args))
			}
		}
		if word == "" {
			if len(words) > 0 {
				t.Errorf("procedure %d was given commands %v", e.Proc, words)
			}
			continue
		}
		if len(words) != 1 || words[0] != word {
			t.Errorf("the call with %s was given %v", word, words)
		}
		right++
	}
	if right != clients*rounds {
		t.Errorf("%d calls with commands, want %d", right, clients*rounds)
	}
}

// converse opens a connection and alternates commands to the monitor with other
// calls.
func converse(l *posterntest.Libvirtd, domain string, client, rounds int) error {
	r, err := posterntest.DialRPC("unix", l.Socket())
	if err != nil {
		return err
	}
	defer r.Close()
	reply, err := r.Call(posterntest.ProcLookupByName, posterntest.String(domain))
	if err != nil {
		return err
	}
	dom := bytes.Clone(reply)
	for i := range rounds {
		qmp := fmt.Sprintf(`{"execute":"qom-get","arguments":{"path":"/machine","property":"word-%d-%d."}}`, client, i)
		args := append(bytes.Clone(dom), posterntest.String(qmp)...)
		if _, err := r.CallProgram(posterntest.QEMUProgram, posterntest.ProcQEMUMonitorCommand,
			binary.BigEndian.AppendUint32(args, 0)); err != nil {
			return err
		}
		if _, err := r.Call(posterntest.ProcDomainState, append(bytes.Clone(dom), 0, 0, 0, 0)); err != nil {
			return err
		}
	}
	return nil
}

// wordIn returns the word-N-N. in a text, or "".
func wordIn(s string) string {
	i := strings.Index(s, "word-")
	if i < 0 {
		return ""
	}
	word, _, _ := strings.Cut(s[i:], ".")
	return word
}

// domainIn returns the name that begins a payload.
func domainIn(b []byte) string {
	if len(b) < 4 {
		return ""
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return ""
	}
	return string(b[4 : 4+n])
}

func TestTreeKeepsCommandsForTheReply(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	startDomain(t, l, "vm1")
	c, _ := traced(t, Config{What: RPC | Monitor, Tree: true}, func(l *posterntest.Libvirtd) {
		posterntest.Virsh(t, l.UnixURI(), "qemu-monitor-command", "vm1", `{"execute":"query-status"}`)
	})
	sent := c.Of(func(e *event.Event) bool { return e.Kind == event.MonitorSend || e.Kind == event.MonitorReply })
	if len(sent) != 0 {
		t.Errorf("%d monitor messages beside the tree: %+v", len(sent), sent[0])
	}
	n := 0
	for _, e := range c.Of(func(e *event.Event) bool {
		return e.Kind == event.ServerTx && e.Prog == posterntest.QEMUProgram
	}) {
		for _, m := range e.Call.Monitor {
			n++
			if !strings.Contains(m.Text, "query-status") || !strings.Contains(m.Reply, "running") ||
				m.Domain != "vm1" {
				t.Errorf("%+v", m)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d commands, want 1", n)
	}
}
