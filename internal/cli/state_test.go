package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
)

// TestLogFollow prints each new line as it is written, until it is interrupted.
func TestLogFollow(t *testing.T) {
	dir := t.TempDir()
	st, err := state.Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		var err error
		var errs bytes.Buffer
		args := []string{"log", "follow", "--state", dir, "--json", "--kind", "otp"}
		if code := run(ctx, args, strings.NewReader(""), w, &errs); code != 0 {
			err = fmt.Errorf("exit %d: %s", code, errs.String())
		}
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
		if err != nil || !strings.Contains(line, `"object":"`+object+`"`) ||
			strings.Contains(line, postern.EventConfigLoaded) {
			t.Errorf("after %s: %q, %v", object, line, err)
		}
	}
	interrupt()
	if err := <-done; err != nil {
		t.Errorf("interrupted: %v", err)
	}
}
