package terminal_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
)

func TestPromptReadsFilesAndPipes(t *testing.T) {
	for name, c := range map[string]struct {
		text, line string
		code       postern.Code
	}{
		"one line": {"secret\n", "secret", 0}, "of Windows": {"secret\r\nrest", "secret", 0},
		"without an end": {"a b ", "a b ", 0},
		"nothing":        {"", "", postern.Invalid}, "an empty line": {"\nsecret", "", postern.Invalid},
		"too much": {strings.Repeat("a", 5000), "", postern.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := terminal.Prompt{In: strings.NewReader(c.text), Err: io.Discard}
			for _, path := range []string{file, "-"} {
				line, err := p.FirstLine(path)
				if string(line) != c.line || err != nil && postern.CodeOf(err) != c.code ||
					(err == nil) != (c.code == 0) {
					t.Errorf("%s: %q, %v", path, line, err)
				}
			}
		})
	}
}

// TestPromptWithoutATerminal gets no answer, and does not wait for one.
func TestPromptWithoutATerminal(t *testing.T) {
	var asked strings.Builder
	p := terminal.Prompt{In: strings.NewReader("123456\nmore\n"), Err: &asked}
	if line, err := p.Line("Code: "); line != "123456" || err != nil {
		t.Errorf("a line: %q, %v", line, err)
	}
	if _, err := p.Passphrase("", "the file"); postern.CodeOf(err) != postern.Invalid || postern.HintOf(err) == "" {
		t.Errorf("a passphrase that exists: %v", err)
	}
	one, random, err := p.NewPassword("", "the file")
	other, _, _ := p.NewPassword("", "the file")
	if len(one) < 20 || one == other || !random || err != nil {
		t.Errorf("new passwords: %q, %q, %t, %v", one, other, random, err)
	}
	if asked.String() != "" {
		t.Errorf("asked %q", &asked)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "0d": 0, "-1h": 0, "100000d": 0,
		"d": 0, "1": 0, "": 0,
	} {
		t.Run(text, func(t *testing.T) {
			var d terminal.Duration
			if err := d.Set(text); (err == nil) != (want != 0) || time.Duration(d) != want {
				t.Errorf("%v, %v", time.Duration(d), err)
			}
		})
	}
}
