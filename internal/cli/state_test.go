package cli

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// TestTwoInitsAtOnce makes one state from several sides, and each can use it.
func TestTwoInitsAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	keys := make([]string, 4)
	for i := range keys {
		wg.Go(func() {
			a := &app{out: io.Discard, err: io.Discard, state: dir}
			st, err := a.create(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			keys[i] = st.Store.Timeline().LogVerifier()
			if err := st.Store.Append(t.Context(), postern.Event{Kind: "test"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key == "" || key != keys[0] {
			t.Errorf("log keys are %q", keys)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".new-") {
			t.Errorf("%s is left over", e.Name())
		}
	}
}

// TestLogFollow prints each new line as it is written, until it is interrupted.
func TestLogFollow(t *testing.T) {
	dir := t.TempDir()
	st, err := (&app{state: dir}).create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		o := &logOptions{json: true, filter: timeline.Filter{Limit: 10, Kind: "otp"}}
		a := &app{out: w, err: io.Discard, state: dir}
		err := a.logFollow(ctx, o)
		w.CloseWithError(err) // nothing more is printed, so the reader does not wait
		done <- err
	}()
	lines := bufio.NewReader(r)
	for _, object := range []string{"one", "two", "three"} {
		for _, kind := range []string{postern.EventOTP, postern.EventConfigLoaded} {
			if err := st.Store.Append(t.Context(), postern.Event{Kind: kind, Object: object}); err != nil {
				t.Fatal(err)
			}
		}
		line, err := lines.ReadString('\n')
		if err != nil || !strings.Contains(line, `"object":"`+object+`"`) || strings.Contains(line, postern.EventConfigLoaded) {
			t.Errorf("after %s: %q, %v", object, line, err)
		}
	}
	interrupt()
	if err := <-done; err != nil {
		t.Errorf("interrupted: %v", err)
	}
}
