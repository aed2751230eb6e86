package format_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// TestAgainstLibvirtsLog traces virsh over a Unix socket and over TLS, and
// compares what is written with what libvirt's own debug log says of the same
// run: each message, by address, length and all numbers, and the domain that
// each call of the API was about.
func TestAgainstLibvirtsLog(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	if out, err := l.Virsh("start", "vm1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for transport, uri := range map[string]string{"unix": l.UnixURI(), "tls": l.TLSURI()} {
		t.Run(transport, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			raw := debugged(t, format.Raw, uri, log)
			if got, want := only(raw, "client="), logged(t, log); !slices.Equal(got, want) {
				t.Errorf("%d lines, the log has %d:\n%s\nlog:\n%s", len(got), len(want), strings.Join(got, "\n"),
					strings.Join(want, "\n"))
			} else if len(got) < 40 {
				t.Errorf("only %d messages", len(got))
			}

			log = filepath.Join(t.TempDir(), "log")
			objects := debugged(t, format.JSON, uri, log)
			got, want := domains(t, objects), loggedDomains(t, log)
			got = slices.DeleteFunc(got, func(s string) bool { // some calls of the API write another line
				return strings.HasPrefix(s, "domain_is_active ")
			})
			if !slices.Equal(got, want) || len(got) < 10 {
				t.Errorf("calls for %v\nthe log says %v", got, want)
			}
		})
	}
}

// debugged returns the lines that a trace in a format writes while virsh runs with its
// debug log in a file.
func debugged(t *testing.T, f format.Format, uri, log string) []string {
	t.Helper()
	out := traced(t, func() { loudVirsh(t, uri, log) }, capture.Config{}, format.Config{Format: f, Full: true})
	return lines(out, func(string) bool { return true })
}

// loudVirsh runs virsh with its library's debug log in a file.
func loudVirsh(t *testing.T, uri, log string) {
	t.Helper()
	cmd := exec.Command("virsh", "-q", "-c", uri)
	cmd.Env = append(os.Environ(), "LIBVIRT_LOG_FILTERS=1:rpc 1:libvirt", "LIBVIRT_LOG_OUTPUTS=1:file:"+log)
	cmd.Stdin = strings.NewReader("dominfo vm1\ndomstats\nvcpucount vm1\ndumpxml vm1\ndomname 77\nschedinfo vm1\n" +
		"suspend vm1\nresume vm1\nquit\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("virsh: %v: %s", err, out)
	}
}

func only(lines []string, prefix string) []string {
	return slices.DeleteFunc(lines, func(s string) bool { return !strings.HasPrefix(s, prefix) })
}

var logLine = regexp.MustCompile(
	`RPC_CLIENT_MSG_(?:RX|TX_QUEUE): client=(\S+) len=(\d+) prog=(\d+) vers=(\d+) proc=(\d+) type=(\d+) ` +
		`status=(\d+) serial=(\d+)`)

// logged returns the messages of the log, written as the raw format does.
func logged(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range logLine.FindAllStringSubmatch(string(b), -1) {
		out = append(out,
			fmt.Sprintf("client=%s len=%s program=%s version=%s procedure=%s type=%s status=%s serial=%s", m[1], m[2],
				m[3], m[4], m[5], m[6], m[7], m[8]))
	}
	return out
}

// loggedDomains returns the calls of the API that were for a domain, each as the
// procedure it stands for, and the domain's name and UUID.
func loggedDomains(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile(`: vir(Domain\w+):\d+ : dom=\S+, \(VM: name=(\S+), uuid=([-0-9a-f]+)\)`).
		FindAllStringSubmatch(string(b), -1) {
		if procedure := snake(m[1]); len(libvirt.Match("remote."+procedure)) > 0 {
			out = append(out, procedure+" "+m[2]+" "+m[3])
		}
	}
	return out
}

// snake turns DomainGetXMLDesc into domain_get_xml_desc.
func snake(s string) string {
	s = regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(s, "${1}_$2")
	return strings.ToLower(regexp.MustCompile(`([A-Z])([A-Z][a-z])`).ReplaceAllString(s, "${1}_$2"))
}

// domains returns the same of the traced calls: those whose first argument is a
// domain.
func domains(t *testing.T, lines []string) []string {
	t.Helper()
	var out []string
	for _, line := range lines {
		var e struct {
			Side, Type, Procedure string
			Malformed             bool
			Unknown               int `json:"unknown_bytes"`
			Cut                   int `json:"cut_bytes"`
			Domain                struct{ Name, UUID string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Malformed || e.Unknown+e.Cut > 0 {
			t.Errorf("not decoded whole: %s", line)
		}
		if e.Side == "client" && e.Type == "call" && e.Domain.UUID != "" {
			out = append(out, e.Procedure+" "+e.Domain.Name+" "+e.Domain.UUID)
		}
	}
	return out
}
