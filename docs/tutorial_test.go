package docs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTutorials follows each tutorial, and each recipe that has console blocks, from
// its first line to its last on a fresh host: files are written, commands run, and
// what they print is what the page shows.
func TestTutorials(t *testing.T) {
	followed := 0
	for _, page := range pages(t) {
		if dir := filepath.Dir(page); dir != "tutorials" && dir != "recipes" ||
			!slices.ContainsFunc(blocks(t, page), block.isConsole) {
			continue
		}
		followed++
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			for _, start := range services[name] {
				start(h)
			}
			for _, before := range begins[name] {
				h.followPage(before)
			}
			h.recordings = map[string][]scene{}
			h.followPage(page)
			h.keepRecordings()
		})
	}
	if followed < 7 {
		t.Errorf("only %d pages are followed", followed)
	}
}

// begins are the tutorials that another one goes on from.
var begins = map[string][]string{"who-destroyed-vm3": {"tutorials/two-factors-for-ssh.md"}}

func (h *host) followPage(page string) {
	h.T.Helper()
	for _, b := range blocks(h.T, page) {
		if err := h.follow(b); err != nil {
			h.T.Fatal(err)
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
	case !b.isConsole():
		return nil
	}
	steps, err := b.steps()
	if err != nil {
		return err
	}
	for i, s := range steps {
		want := 0
		if i == len(steps)-1 {
			want = b.exit
		}
		if b.terminal != "" {
			err = h.open(b.terminal, s)
		} else {
			err = h.do(s, want)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %s\n%w", b.page, s.line, s.command, err)
		}
	}
	return nil
}

// open starts a command in a terminal of its own.
func (h *host) open(name string, s step) error {
	if h.more[name] != nil {
		return fmt.Errorf("the terminal %s is busy", name)
	}
	h.more[name] = &terminal{Shell: h.Shell("root")}
	h.more[name].start(s)
	return nil
}

// typed returns the command to run.
func (s step) typed() string {
	if s.inTerminal() {
		return inTerminal(s.command)
	}
	return s.command
}

// inTerminal reports whether the command runs in a terminal, which breaks its
// lines elsewhere than the page.
func (s step) inTerminal() bool { return s.record != "" && *screenshots }

// do runs a command, and compares what it prints and its exit code.
func (h *host) do(s step, want int) error {
	sh, prompt := h.you, "$ "
	if s.root {
		sh, prompt = h.Root, "# "
	}
	raw, code := sh.Run(s.typed())
	out := plain(raw)
	h.T.Logf("%d: %s\n%s", s.line, s.command, out)
	if code != want {
		return fmt.Errorf("ends with %d, not %d:\n%s", code, want, out)
	}
	if len(s.output) > 0 && !s.inTerminal() && !matches(s.output, out) {
		return fmt.Errorf("prints\n%s\nand the page shows\n%s", out, strings.Join(s.output, "\n"))
	}
	if s.record != "" {
		h.recordings[s.record] = append(h.recordings[s.record], scene{prompt, s.command, raw})
	}
	return nil
}

// write writes a block to the file that it names.
func (h *host) write(b block) error {
	mode := os.FileMode(0o644)
	if strings.HasPrefix(b.text, "#!") {
		mode = 0o755
	}
	return h.Write(b.file, b.text, mode)
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
