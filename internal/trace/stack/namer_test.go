package stack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
)

// built is a program that was compiled and stripped.
type built struct {
	path, debug, id string // the program, its debug file, its build-id
	source          string
	hidden          uint64 // where a static function of it begins
}

func build(t *testing.T) built {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(posterntest.Need(t, name), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	source := "static int hidden(int n) { return n * 3; }\nint main(int argc, char **argv) { return hidden(argc); }\n"
	if err := os.WriteFile(at("p.c"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	run("gcc", "-g", "-O0", "-Wl,--build-id", "-o", at("p"), at("p.c"))
	start := regexp.MustCompile(`(?m)^([0-9a-f]+) t hidden$`).FindStringSubmatch(run("nm", at("p")))[1]
	hidden, err := strconv.ParseUint(start, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	run("objcopy", "--only-keep-debug", at("p"), at("p.debug"))
	id := regexp.MustCompile(`Build ID: ([0-9a-f]+)`).FindStringSubmatch(run("readelf", "-n", at("p")))[1]
	return built{at("p"), at("p.debug"), id, at("p.c"), hidden}
}

// TestRecordedFramesGetNames names a static function of a stripped program by its debug
// file, wherever that is found, and no other.
func TestRecordedFramesGetNames(t *testing.T) {
	p := build(t)
	dir := t.TempDir()
	installed := filepath.Join(dir, ".build-id", p.id[:2], p.id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(installed), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.debug, installed); err != nil {
		t.Fatal(err)
	}
	asked := 0
	fetch := func(file string, err error) func(string) (string, error) {
		return func(string) (string, error) { asked++; return file, err }
	}
	none := t.TempDir()
	for _, c := range []struct {
		name  string
		namer *Namer
		want  string
		asked int
	}{
		{"installed", &Namer{Debug: []string{none, dir}, Fetch: fetch("", nil)}, "hidden", 0},
		{"fetched", &Namer{Debug: []string{none}, Fetch: fetch(p.debug, nil)}, "hidden", 1},
		{"nowhere", &Namer{Debug: []string{none}, Fetch: fetch("", errors.New("none"))}, "", 1},
		{"another file", &Namer{Debug: []string{none}, Fetch: fetch(posterntest.Need(t, "true"), nil)}, "", 1},
		{"no server", &Namer{Debug: []string{none}}, "", 0},
	} {
		asked = 0
		for range 2 {
			frames := []event.Frame{
				{BuildID: p.id, Start: p.hidden, Offset: 4, Size: 12},
				{BuildID: p.id, Start: p.hidden, Size: 12, Symbol: "known"},
				{BuildID: "../../x", Start: p.hidden, Size: 12},
				{BuildID: p.id, PC: p.hidden},
			}
			c.namer.Name(frames)
			if frames[0].Symbol != c.want || frames[1].Symbol != "known" || frames[2].Symbol != "" ||
				frames[3].Symbol != "" {
				t.Errorf("%s: %+v", c.name, frames)
			}
		}
		if asked != c.asked {
			t.Errorf("%s: asked %d times", c.name, asked)
		}
	}
}

// TestFramesGetSourceLines says where the code of a program stands in its source: by a debug
// file that is installed, or was fetched before, or by the program itself. None is fetched
// for it.
func TestFramesGetSourceLines(t *testing.T) {
	p := build(t)
	none := []string{t.TempDir()}
	cached := func(id string) string {
		if id != p.id {
			t.Errorf("asked for %s", id)
		}
		return p.debug
	}
	fetch := func(string) (string, error) { t.Error("a file was fetched"); return p.debug, nil }
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, module string
		namer        *Namer
		known        bool
	}{
		{"fetched before", "/none", &Namer{Debug: none, Cached: cached, Fetch: fetch}, true},
		{"of the program itself", p.path, &Namer{Debug: none, Fetch: fetch}, true},
		{"nowhere", "/none", &Namer{Debug: none, Fetch: fetch}, false},
		{"another file", posterntest.Need(t, "true"), &Namer{Debug: none}, false},
		{"a pipe", fifo, &Namer{Debug: none}, false},
		{"no path", "p", &Namer{Debug: none}, false},
	} {
		frame := event.Frame{BuildID: p.id, Start: p.hidden, Offset: 4, Size: 12, Symbol: "hidden", Module: c.module}
		caller := frame
		caller.Offset = 0 // the call before it is of another line, or of none
		for range 2 {
			frames := []event.Frame{frame, caller}
			c.namer.Name(frames)
			if f := frames[0]; c.known && (f.File != p.source || f.Line != 1) ||
				!c.known && (f.File != "" || f.Line != 0) {
				t.Errorf("%s: at %s:%d", c.name, f.File, f.Line)
			}
			if f := frames[1]; f.File == p.source && f.Line == 1 {
				t.Errorf("%s: what returns to the function's begin is called at %s:%d", c.name, f.File, f.Line)
			}
		}
	}
}

// TestNamesThatAreFetchedMeanwhile: nothing waits for a debug file, and what comes after
// it has names.
func TestNamesThatAreFetchedMeanwhile(t *testing.T) {
	p := build(t)
	asked, answer := make(chan string, 1), make(chan string)
	n := Namer{Debug: []string{t.TempDir()}, Background: true, Fetch: func(id string) (string, error) {
		asked <- id
		return <-answer, nil
	}}
	name := func() string {
		frames := []event.Frame{{BuildID: p.id, Start: p.hidden, Size: 8}}
		n.Name(frames)
		return frames[0].Symbol
	}
	for range 2 { // it is asked for once
		if got := name(); got != "" {
			t.Fatalf("named %q before the file is there", got)
		}
	}
	if id := <-asked; id != p.id {
		t.Errorf("asked for %s", id)
	}
	answer <- p.debug
	n.Close()
	if got := name(); got != "hidden" {
		t.Errorf("named %q", got)
	}
}
