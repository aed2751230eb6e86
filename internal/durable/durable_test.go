//go:build unix

package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := durable.Create(path, []byte("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if err := durable.Ensure(path, []byte("two"), 0o600); err != nil {
		t.Errorf("ensure: %v", err)
	}
	if got := read(t, path); got != "one" || mode(t, path) != 0o640 {
		t.Errorf("%q, mode %v", got, mode(t, path))
	}
	dangling := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), dangling); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(dangling, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a symbolic link: %v", err)
	}
	if err := durable.Create(filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
	nothingLeft(t, dir)
}

func TestMakeDir(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := durable.MakeDir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for at := path; at != dir; at = filepath.Dir(at) {
		if mode(t, at) != fs.ModeDir|0o700 {
			t.Errorf("%s has the mode %v", at, mode(t, at))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{filepath.Join(dir, "f"), filepath.Join(dir, "f", "g")} {
		if err := durable.MakeDir(bad, 0o700); err == nil {
			t.Errorf("%s is made, below or in place of a file", bad)
		}
	}
}

// TestCreateOnce creates one file from many sides: one of them does.
func TestCreateOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = durable.Create(path, fmt.Append(nil, i), 0o600) })
	}
	wg.Wait()
	made := -1
	for i, err := range errs {
		switch {
		case err == nil && made < 0:
			made = i
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("%d: %v, after %d made it", i, err, made)
		}
	}
	if got := read(t, path); got != fmt.Sprint(made) {
		t.Errorf("%d made it, and it holds %q", made, got)
	}
	nothingLeft(t, dir)
}

// TestReplace never shows a reader a part of a file.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	contents := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 200_000)}
	if err := durable.Replace(path, []byte(contents[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			if err := durable.Replace(path, []byte(contents[i%2]), 0o600); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if got := read(t, path); got != contents[0] && got != contents[1] {
			t.Fatalf("a part: %d bytes", len(got))
		}
	}
	nothingLeft(t, dir)
}

// TestReplaceLink does not write through a symbolic link, which an attacker may have made.
func TestReplaceLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, []byte("kept"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(link, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if read(t, target) != "kept" || read(t, link) != "new" || mode(t, link) != 0o644 {
		t.Errorf("the target holds %q, the link's place %q, mode %v", read(t, target), read(t, link), mode(t, link))
	}
}

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	target, link, pipe := filepath.Join(dir, "target"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(target, []byte("old"), 0o640), os.Symlink(target, link),
		syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := durable.Output(link, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if read(t, target) != "new" || mode(t, link).Type() != fs.ModeSymlink || mode(t, target) != 0o640 {
		t.Errorf("through a link: %q, %v, %v", read(t, target), mode(t, link), mode(t, target))
	}
	got := make(chan string)
	go func() {
		b, _ := os.ReadFile(pipe)
		got <- string(b)
	}()
	if err := durable.Output(pipe, []byte("flows"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "flows" || mode(t, pipe).Type() != fs.ModeNamedPipe {
		t.Errorf("the pipe gave %q and is %v", s, mode(t, pipe))
	}
	fresh := filepath.Join(dir, "fresh")
	if err := durable.Output(fresh, []byte("x"), 0o644); err != nil || mode(t, fresh) != 0o644 {
		t.Errorf("a new file: %v", err)
	}
}

// TestOwner gives what root writes to the owner of the directory or of the file
// before. What another user writes is that user's.
func TestOwner(t *testing.T) {
	me, other := os.Geteuid(), os.Geteuid()
	if me == 0 {
		other = 65534
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.Chown(dir, other, -1); err != nil {
		t.Fatal(err)
	}
	owner := func() int {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Sys().(*syscall.Stat_t).Uid)
	}
	for _, c := range []struct {
		name    string
		options []durable.Option
		want    int
	}{
		{"the writer's", nil, me},
		{"the directory's", []durable.Option{durable.DirectoryOwner}, other},
		{"as before", []durable.Option{durable.KeepOwner}, other},
		{"the writer's again", nil, me},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := durable.Replace(path, nil, 0o600, c.options...); err != nil {
				t.Fatal(err)
			}
			if got := owner(); got != c.want {
				t.Errorf("belongs to %d", got)
			}
		})
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	path := filepath.Join(dir, "secret")
	if _, err := durable.ReadSecret(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if err := os.WriteFile(path, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode               fs.FileMode
		secret, credential bool
	}{{0o600, true, true}, {0o400, true, true}, {0o640, false, true}, {0o604, false, false}} {
		t.Run(fmt.Sprintf("%04o", c.mode), func(t *testing.T) {
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			for name, f := range map[string]struct {
				read func(string) ([]byte, error)
				ok   bool
			}{"secret": {durable.ReadSecret, c.secret}, "credential": {durable.ReadCredential, c.credential}} {
				b, err := f.read(path)
				if f.ok && (err != nil || string(b) != "s") || !f.ok && postern.CodeOf(err) != postern.Denied {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
	if _, err := durable.ReadSecret(dir); postern.CodeOf(err) != postern.Denied {
		t.Errorf("a directory: %v", err)
	}
}

func TestOutputFollowsLinksToTheirEnd(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(os.Mkdir(at("below"), 0o700), os.WriteFile(at("target"), []byte("old"), 0o600),
		os.Symlink("../target", at("below/one")), os.Symlink(at("below/one"), at("two")),
		os.Symlink("two", at("three")))
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.Output(at("three"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if read(t, at("target")) != "new" || mode(t, at("target")) != 0o600 {
		t.Errorf("%q, %v", read(t, at("target")), mode(t, at("target")))
	}
	for _, link := range []string{"below/one", "two", "three"} {
		if mode(t, at(link)).Type() != fs.ModeSymlink {
			t.Errorf("%s is no link any more", link)
		}
	}
}
