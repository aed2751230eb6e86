package docs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTutorials follows each tutorial from its first line to its last on a fresh
// host: files are written, commands run, and what they print is what the page
// shows.
func TestTutorials(t *testing.T) {
	list, err := filepath.Glob("tutorials/*.md")
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for _, page := range list {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			for _, start := range services[name] {
				start(h)
			}
			for _, before := range begins[name] {
				h.followPage(before)
			}
			h.followPage(page)
		})
	}
}

// begins are the tutorials that another one goes on from.
var begins = map[string][]string{"who-destroyed-vm3": {"tutorials/two-factors-for-ssh.md"}}

func (h *host) followPage(page string) {
	h.t.Helper()
	for _, b := range blocks(h.t, page) {
		if err := h.follow(b); err != nil {
			h.t.Fatal(err)
		}
	}
}

// follow does what a block says.
func (h *host) follow(b block) error {
	if b.host != "" {
		other := h.hosts[b.host]
		if other == nil {
			return fmt.Errorf("%s:%d: there is no host %s", b.page, b.line, b.host)
		}
		b.host = ""
		return other.follow(b)
	}
	switch {
	case b.file != "":
		return h.write(b)
	case b.language != "console":
		return nil
	}
	steps, err := b.steps()
	if err != nil {
		return err
	}
	for i, s := range steps {
		if b.terminal != "" {
			if h.more[b.terminal] != nil {
				return fmt.Errorf("%s:%d: the terminal %s is busy", b.page, s.line, b.terminal)
			}
			h.more[b.terminal] = h.shell("root")
			h.more[b.terminal].start(s.command, s.output)
			continue
		}
		sh := h.you
		if s.root {
			sh = h.root
		}
		want := 0
		if i == len(steps)-1 {
			want = b.exit
		}
		out, code := sh.run(s.command)
		h.t.Logf("%s:%d: %s\n%s", filepath.Base(b.page), s.line, s.command, out)
		if code != want {
			return fmt.Errorf("%s:%d: %s\nends with %d, not %d:\n%s", b.page, s.line, s.command, code, want, out)
		}
		if len(s.output) > 0 && !matches(s.output, out) {
			return fmt.Errorf("%s:%d: %s\nprints\n%s\nand the page shows\n%s", b.page, s.line, s.command, out, strings.Join(s.output, "\n"))
		}
	}
	return nil
}

// write writes a block to the file that it names.
func (h *host) write(b block) error {
	path := fmt.Sprintf("/proc/%d/root%s", h.pid, b.file)
	mode := os.FileMode(0o644)
	if strings.HasPrefix(b.text, "#!") {
		mode = 0o755
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(b.text), mode), os.Chmod(path, mode))
}

// TestATutorialCanFail follows pages whose commands print, or end, otherwise
// than the page says.
func TestATutorialCanFail(t *testing.T) {
	h := newHost(t)
	for text, fails := range map[string]bool{
		"```console\n# echo a\na\n```\n":                                          false,
		"```console\n# echo a\nb\n```\n":                                          true,
		"```console\n# echo a; echo b\na\n```\n":                                  true,
		"```console\n# false\n```\n":                                              true,
		"<!-- exit: 1 -->\n```console\n# false\n```\n":                            false,
		"<!-- exit: 1 -->\n```console\n# true\n```\n":                             true,
		"```console\n# postern nothing\n```\n":                                    true,
		"```console\n# cd /etc\n# pwd\n/etc\n```\n":                               false,
		"```text file=/srv/x\nhello\n```\n```console\n$ cat /srv/x\nhello\n```\n": false,
		"```text file=/srv/x\nhello\n```\n```console\n$ cat /srv/x\nbye\n```\n":   true,
		"```console\n$ id -un\nalice\n# id -un\nroot\n```\n":                      false,
	} {
		list, err := parse("page", text)
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		for _, b := range list {
			failed = errors.Join(failed, h.follow(b))
		}
		if (failed != nil) != fails {
			t.Errorf("%s: %v", text, failed)
		}
	}
}
