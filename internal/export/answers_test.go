package export

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// answering is an HTTP receiver that takes a request or refuses it with a status.
func answering(t *testing.T, answer func(lines []string, w http.ResponseWriter) int) (address string, got *[]int64) {
	t.Helper()
	got = new([]int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		all := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
		status := answer(all, w)
		w.WriteHeader(status)
		if status == http.StatusOK {
			for _, line := range all {
				*got = append(*got, indexOf(t, line))
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func TestABatchThatIsTooLargeIsSentInParts(t *testing.T) {
	refused := 0
	address, got := answering(t, func(lines []string, _ http.ResponseWriter) int {
		if len(lines) > 5 {
			refused++
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusOK
	})
	if err := Run(t.Context(), newLog(600), options(t, address)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*got, indices(0, 600)) || refused > 7 {
		t.Errorf("got %v after %d refusals", *got, refused)
	}
}

// TestWhatWasSentBeforeTheCursorMovedIsSentAgain ends an export between the answer and the cursor,
// as a kill may.
func TestWhatWasSentBeforeTheCursorMovedIsSentAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cursors")
	address, got := answering(t, func([]string, http.ResponseWriter) int {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return http.StatusOK
	})
	o := options(t, address)
	o.Cursor = filepath.Join(dir, "cursor")
	for range 2 {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("the cursor cannot be written, and it is %v", err)
		}
	}
	if !slices.Equal(*got, []int64{0, 1, 2, 0, 1, 2}) {
		t.Errorf("got %v", *got)
	}
}

// TestAReceiverMayWantAHeader sends a token instead of a signature.
func TestAReceiverMayWantAHeader(t *testing.T) {
	var headers []http.Header
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		headers = append(headers, r.Header)
	}))
	t.Cleanup(s.Close)
	o := options(t, s.URL)
	o.Secret, o.Authorization = "", filepath.Join(t.TempDir(), "authorization")
	for _, bad := range []string{"", " \n", "Splunk x\nHost: y"} {
		if err := os.WriteFile(o.Authorization, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := os.WriteFile(o.Authorization, []byte("Splunk 0b4c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), newLog(3), o); err != nil {
		t.Fatal(err)
	}
	if len(headers) != 1 || headers[0].Get("Authorization") != "Splunk 0b4c" ||
		headers[0].Get("Webhook-Signature") != "" {
		t.Errorf("sent %v", headers)
	}
	o.Authorization = ""
	if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("neither key nor header: %v", err)
	}
}

// TestNoEntryIsSkippedThatAReceiverRefuses has a receiver that never takes the fifth entry.
func TestNoEntryIsSkippedThatAReceiverRefuses(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests} {
		address, got := answering(t, func(lines []string, w http.ResponseWriter) int {
			for _, line := range lines {
				if indexOf(t, line) == 4 {
					w.Header().Set("Retry-After", "7")
					return status
				}
			}
			return http.StatusOK
		})
		err := Run(t.Context(), newLog(9), options(t, address))
		if postern.CodeOf(err) != postern.Unavailable || !strings.Contains(err.Error(), http.StatusText(status)) {
			t.Errorf("%d: %v", status, err)
		}
		if askedFor(err) != 7*time.Second {
			t.Errorf("%d: it asks to wait for %s", status, askedFor(err))
		}
		if slices.Contains(*got, 4) || slices.Contains(*got, 5) {
			t.Errorf("%d: got %v", status, *got)
		}
	}
}

// TestASignalEndsAWait wakes an export that the receiver has asked to wait for an hour.
func TestASignalEndsAWait(t *testing.T) {
	var up atomic.Bool
	receiver, got := answering(t, func(_ []string, w http.ResponseWriter) int {
		if up.Load() {
			return http.StatusOK
		}
		w.Header().Set("Retry-After", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
		return http.StatusServiceUnavailable
	})
	wake := make(chan os.Signal, 1)
	o := options(t, receiver)
	o.Wake = wake
	wait := follow(t, newLog(3), o)
	up.Store(true)
	wake <- syscall.SIGHUP
	wait()
	if !slices.Equal(*got, indices(0, 3)) {
		t.Errorf("got %v", *got)
	}
}

func TestPrometheusSeesHowFarAnExportIs(t *testing.T) {
	var up atomic.Bool
	receiver, _ := answering(t, func([]string, http.ResponseWriter) int {
		if up.Load() {
			return http.StatusOK
		}
		return http.StatusServiceUnavailable
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, receiver)
	o.Metrics = l.Addr().String()
	if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("the address is in use, and it is %v", err)
	}
	l.Close()
	wait := follow(t, newLog(3), o)
	text := scrape(t, o.Metrics)
	for _, want := range []string{
		"postern_export_lag_entries 3\n", "postern_export_entries_total 0\n", "postern_export_failures_total 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	knownNumbers(t, text)
	up.Store(true)
	wait()
}

// knownNumbers has promtool judge a scrape and the rules that are shipped, which name nothing else.
func knownNumbers(t *testing.T, text string) {
	t.Helper()
	promtool := posterntest.Need(t, "promtool")
	rules := "../../packaging/prometheus/postern-export.rules.yml"
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	for _, cmd := range []*exec.Cmd{check, exec.Command(promtool, "check", "rules", rules)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	for _, name := range regexp.MustCompile(`postern_[a-z_]+`).FindAllString(posterntest.Read(t, rules), -1) {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("the rules name %s, which an export does not serve", name)
		}
	}
}

func scrape(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
