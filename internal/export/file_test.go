package export

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/system"
)

// fileLines returns the indices of the lines of a file, which may be missing.
func fileLines(t *testing.T, path string) (got []int64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		got = append(got, indexOf(t, line))
	}
	return got
}

func toFile(t *testing.T) (path string, o Options) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "timeline.json")
	return path, options(t, "file://"+path)
}

func TestAFileIsRotatedAtItsSize(t *testing.T) {
	path, o := toFile(t)
	one := int64(len(lines([]record{{text: mustText(t, newLog(1)[0])}})))
	o.Rotate, o.Keep = 4*one+one/2, 2 // some bytes for longer indices
	for n := range 10 {
		if err := Run(t.Context(), newLog(n+1), o); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][]int64{
		path + ".2": indices(0, 4), path + ".1": indices(4, 8), path: indices(8, 10), path + ".3": nil,
	} {
		if got := fileLines(t, name); !slices.Equal(got, want) {
			t.Errorf("%s has %v", filepath.Base(name), got)
		}
	}
	o.Keep = 1
	for n := 10; n < 20; n++ {
		if err := Run(t.Context(), newLog(n+1), o); err != nil {
			t.Fatal(err)
		}
	}
	if got := append(fileLines(t, path+".1"), fileLines(t, path)...); !slices.Equal(got,
		indices(20-int64(len(got)), 20)) {
		t.Errorf("the newest are %v", got)
	}
}

func mustText(t *testing.T, e postern.Event) []byte {
	t.Helper()
	text, err := nativeJSON(nil, "")(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestAFileMayBeRenamed renames and removes it between the batches of one receiver, as
// logrotate does.
func TestAFileMayBeRenamed(t *testing.T) {
	path, o := toFile(t)
	to, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	send := func(from, until int64) {
		t.Helper()
		x := exporter{format: nativeJSON(nil, "")}
		batch, err := x.records(t.Context(), newLog(int(until)), from)
		if err == nil {
			err = to.send(t.Context(), batch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	send(0, 3)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	send(3, 5)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	send(5, 7)
	send(7, 9)
	if got := append(fileLines(t, path+".1"), fileLines(t, path)...); !slices.Equal(got,
		[]int64{0, 1, 2, 5, 6, 7, 8}) {
		t.Errorf("the files have %v", got)
	}
}

func TestALineThatWasCutShortIsEndedAndSentAgain(t *testing.T) {
	path, o := toFile(t)
	if err := os.WriteFile(path, []byte(`{"index":0,"ti`), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), newLog(2), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut, whole, _ := strings.Cut(string(text), "\n")
	if cut != `{"index":0,"ti` || strings.Count(whole, "\n") != 2 ||
		indexOf(t, whole[:strings.Index(whole, "\n")]) != 0 {
		t.Errorf("the file is %q", text)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	path, _ := toFile(t)
	for name, o := range map[string]Options{
		"a directory": {To: "file://" + filepath.Dir(path)}, "a device": {To: "file:///dev/null"},
		"older ones of none": {To: "file://" + path, Keep: 3}, "a size below 0": {To: "file://" + path, Rotate: -1},
		"a secret": {To: "file://" + path, Secret: "key"}, "certificates": {To: "file://" + path, TLS: TLS{CA: "ca"}},
		"rotation": {To: "https://logs.example.com", Rotate: 5},
		"a query":  {To: "file://" + path + "?x"}, "a fragment": {To: "file://" + path + "#x"},
		"its cursor": {To: "file://" + path, Cursor: path},
	} {
		o.Cursor, o.Report = cmp.Or(o.Cursor, filepath.Join(t.TempDir(), "cursor")), func(string) {}
		if err := Run(t.Context(), newLog(3), o); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTwoExportsToOneFileDoNotMixLines has both append and rotate.
func TestTwoExportsToOneFileDoNotMixLines(t *testing.T) {
	path, o := toFile(t)
	o.Rotate, o.Keep = 64<<10, 100
	var wg sync.WaitGroup
	for range 2 {
		o := o
		o.Cursor = filepath.Join(t.TempDir(), "cursor")
		wg.Go(func() {
			if err := Run(t.Context(), newLog(2000), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	var got []int64
	for _, file := range files {
		got = append(got, fileLines(t, file)...)
	}
	slices.Sort(got)
	if !slices.Equal(slices.Compact(slices.Clone(got)), indices(0, 2000)) || len(got) < 4000 {
		t.Errorf("%d lines", len(got))
	}
}

// TestAFileThatStaysLocked is one that a process which may only read it has locked: the export
// can be ended, and goes on when the lock has ended.
func TestAFileThatStaysLocked(t *testing.T) {
	path, o := toFile(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := system.Lock(reader); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	err = fileReceiver{path: path}.send(ended, []record{{text: mustText(t, newLog(1)[0])}})
	if postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("the file is locked: %v", err)
	}
	if err := system.Unlock(reader); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), newLog(3), o); err != nil {
		t.Error(err)
	}
	if got := fileLines(t, path); !slices.Equal(got, indices(0, 3)) {
		t.Errorf("the file has %v", got)
	}
}

// TestAFullDiskLeavesWholeLines fills the disk of the file and of the cursor, and frees it.
func TestAFullDiskLeavesWholeLines(t *testing.T) {
	disk := posterntest.Mounted(t, "-t", "tmpfs", "-o", "size=256k", "postern-test")
	for name, o := range map[string]Options{
		"file":   options(t, "file://"+disk+"/timeline.json"),
		"cursor": options(t, "file://"+t.TempDir()+"/timeline.json"),
	} {
		path := strings.TrimPrefix(o.To, "file://")
		if name == "cursor" {
			o.Cursor = disk + "/cursor"
		}
		if err := Run(t.Context(), newLog(3), o); err != nil {
			t.Fatal(err)
		}
		filler := disk + "/filler"
		posterntest.Fill(t, filler)
		wait := follow(t, newLog(900), o)
		before := fileLines(t, path)
		if n := int64(len(before)); name == "file" && !slices.Equal(before, indices(0, n)) {
			t.Errorf("%s: the full disk has %v", name, before)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		wait()
		if err := Run(t.Context(), newLog(900), o); err != nil {
			t.Error(err)
		}
		if got := fileLines(t, path); !slices.Equal(got, indices(0, 900)) {
			t.Errorf("%s: the file has %d lines: %v", name, len(got), got)
		}
	}
}
