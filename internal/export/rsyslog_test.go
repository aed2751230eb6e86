package export

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestRsyslogHasEveryEntry exports to a real rsyslogd by each transport, which is not there at
// first.
func TestRsyslogHasEveryEntry(t *testing.T) {
	r := posterntest.NewRsyslog(t)
	const entries = 100
	addresses := []string{
		fmt.Sprintf("syslog+tcp://127.0.0.1:%d", r.Port), fmt.Sprintf("syslog+tls://localhost:%d", r.TLSPort),
		fmt.Sprintf("syslog+udp://127.0.0.1:%d", r.Port), "syslog+unix://" + r.Socket,
	}
	var started []func()
	for i, to := range addresses {
		o := options(t, to)
		if strings.Contains(to, "tls") {
			o.TLS = TLS{r.Dir + "/ca.pem", r.Dir + "/client.pem", r.Dir + "/client.key"}
		}
		if err := Run(t.Context(), marked(i, entries), o); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("%s: nobody received, and it is %v", to, err)
		}
		started = append(started, follow(t, marked(i, entries), o))
	}
	r.Start()
	for _, wait := range started {
		wait()
	}
	for i, to := range addresses { // of UDP and of rsyslog's own queue only it knows
		await(t, func() bool { return slices.Equal(received(t, r, i), indices(0, entries)) }, func() string {
			return fmt.Sprintf("%s: got %v", to, received(t, r, i))
		})
	}
}

// marked is a timeline of which every entry says which one it is.
func marked(of, n int) log {
	l := newLog(n)
	for i := range l {
		l[i].Person = fmt.Sprint("p", of)
	}
	return l
}

// received returns the indices of what was received of a marked timeline.
func received(t *testing.T, r *posterntest.Rsyslog, of int) (got []int64) {
	t.Helper()
	for _, text := range r.Messages() {
		var e postern.Event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if e.Person == fmt.Sprint("p", of) {
			got = append(got, e.Index)
		}
	}
	return got
}

// follow exports in the background, with an outage at first. wait has it try again, and returns
// when it goes on.
func follow(t *testing.T, l log, o Options) (wait func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended, out := make(chan error, 1), make(chan struct{})
	goesOn, wake := make(chan struct{}), make(chan os.Signal, 1)
	o.Follow = true
	if o.Wake == nil {
		o.Wake = wake
	}
	o.Report = func(text string) {
		if text != outage(nil) {
			close(out)
		} else {
			close(goesOn)
		}
	}
	go func() { ended <- Run(ctx, l, o) }()
	select {
	case <-out:
	case err := <-ended:
		t.Fatalf("%s: it ended: %v", o.To, err)
	}
	return func() {
		t.Helper()
		wake <- syscall.SIGHUP
		select {
		case <-goesOn:
		case <-time.After(2 * time.Minute):
			t.Errorf("%s: the export does not go on", o.To)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// await waits for a condition.
func await(t *testing.T, holds func() bool, otherwise func() string) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal(otherwise())
		}
	}
}

// TestTLSIsRefusedWithoutTheRightNames tries a receiver that another CA certified, one of
// another name, and a client without certificate.
func TestTLSIsRefusedWithoutTheRightNames(t *testing.T) {
	r, other := posterntest.NewRsyslog(t), posterntest.NewRsyslog(t)
	r.Start()
	good := TLS{r.Dir + "/ca.pem", r.Dir + "/client.pem", r.Dir + "/client.key"}
	run := func(host string, files TLS) error {
		o := options(t, fmt.Sprintf("syslog+tls://%s:%d", host, r.TLSPort))
		o.TLS = files
		return Run(t.Context(), newLog(3), o)
	}
	if err := run("localhost", good); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another CA":       run("localhost", TLS{other.Dir + "/ca.pem", good.Certificate, good.Key}),
		"the system's CAs": run("localhost", TLS{"", good.Certificate, good.Key}),
		"another name":     run("127.0.0.1", good),
		"no certificate":   run("localhost", TLS{CA: good.CA}),
		"another's client": run("localhost", TLS{good.CA, other.Dir + "/client.pem", other.Dir + "/client.key"}),
		"the server's own": run("localhost", TLS{good.CA, r.Dir + "/localhost.pem", r.Dir + "/localhost.key"}),
		"without encryption": Run(t.Context(), newLog(3), options(t,
			fmt.Sprintf("syslog+tcp://127.0.0.1:%d", r.TLSPort))),
	} {
		if postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, files := range map[string]TLS{
		"no file": {CA: filepath.Join(t.TempDir(), "ca.pem")}, "no key": {CA: good.CA, Certificate: good.Certificate},
		"no certificate": {CA: good.Key},
	} {
		if err := run("localhost", files); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := len(r.Messages()); got > 3 {
		t.Errorf("received %d", got)
	}
}
