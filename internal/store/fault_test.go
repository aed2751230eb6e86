package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
)

// TestMain lets the test binary be a process that appends until it is killed.
func TestMain(m *testing.M) {
	if url := os.Getenv("STORE_TEST_APPEND"); url != "" {
		appendForever(url)
	}
	os.Exit(m.Run())
}

// appendForever appends from several goroutines and prints what was
// acknowledged.
func appendForever(url string) {
	db, err := store.Open(context.Background(), store.Config{URL: url, Key: storetest.Key})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var next atomic.Int64
	for range 8 {
		go func() {
			for {
				object := fmt.Sprintf("%d-%d", os.Getpid(), next.Add(1))
				if err := db.Append(context.Background(), postern.Event{Kind: "test", Object: object}); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println(object)
			}
		}()
	}
	select {}
}

// appender is such a process.
type appender struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startAppender(t *testing.T, url string) *appender {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "STORE_TEST_APPEND="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return &appender{cmd: cmd, out: bufio.NewReader(out)}
}

// kill waits for n acknowledgements, kills the process and returns all that it
// acknowledged.
func (a *appender) kill(t *testing.T, n int) []string {
	t.Helper()
	var acked []string
	for {
		line, err := a.out.ReadString('\n')
		if err != nil {
			break // a line that was cut short does not count
		}
		if strings.HasPrefix(line, "error") {
			t.Error(line)
			break
		}
		if acked = append(acked, strings.TrimSpace(line)); len(acked) == n {
			must(t, a.cmd.Process.Kill())
		}
	}
	_ = a.cmd.Wait() // says that it was killed
	return acked
}

// checkAcked fails if the timeline does not verify or lacks a line that was
// acknowledged.
func checkAcked(t *testing.T, db *store.DB, acked []string) {
	t.Helper()
	if r := verify(t, db); len(r.Problems) > 0 {
		t.Errorf("problems: %v", r.Problems)
	}
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{Kind: "test"})
	must(t, err)
	have := map[string]int{}
	for _, e := range events {
		have[e.Object]++
	}
	for _, object := range acked {
		if have[object] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", object, have[object])
		}
	}
}

func rounds(usual int) int {
	if os.Getenv("POSTERN_SOAK") == "1" {
		return usual * 20
	}
	return usual
}

func TestNoAcknowledgedLineIsLostByKill(t *testing.T) {
	for _, c := range databases(t) {
		t.Run(c.name, func(t *testing.T) {
			url := c.url(t)
			var acked []string
			for range rounds(6) {
				a, b := startAppender(t, url), startAppender(t, url) // two processes append to one log
				var more []string
				var wg sync.WaitGroup
				wg.Go(func() { more = b.kill(t, 1+rand.IntN(200)) })
				acked = append(acked, a.kill(t, 1+rand.IntN(200))...)
				wg.Wait()
				acked = append(acked, more...)
			}
			checkAcked(t, storetest.OpenConfig(t, store.Config{URL: url}), acked)
		})
	}
}

// database makes an empty database.
type database struct {
	name string
	url  func(t *testing.T) string
}

func databases(t *testing.T) []database {
	return []database{
		{"SQLite", func(t *testing.T) string { return filepath.Join(t.TempDir(), "postern.db") }},
		{"PostgreSQL", func(t *testing.T) string { return posterntest.StartPostgreSQL(t).Database() }},
	}
}

// TestChangedFileIsNeverBelieved changes bytes of the SQLite file itself: either
// something says so, or what is read is what was written.
func TestChangedFileIsNeverBelieved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	config := store.Config{URL: path, Key: storetest.Key}
	db, err := store.Open(t.Context(), config)
	must(t, err)
	fill(t, db, 100)
	want, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	must(t, err)
	must(t, db.Close())
	clean, err := os.ReadFile(path)
	must(t, err)
	const entry = postern.EventAccessRefused + "refusedperson2192.0.2.4/a/32}" // its columns
	// The last: a page that was split leaves an old copy.
	entries := bytes.LastIndex(clean, []byte(entry))
	if entries < 0 {
		t.Fatal("no entry is in the file")
	}
	noticed := 0
	n := rounds(250)
	for i := range n {
		at := 100 + rand.IntN(len(clean)-100) // past the header, whose free fields mean nothing
		if i%2 == 0 {
			at = entries + rand.IntN(2000) // in the entries
		}
		changed := bytes.Clone(clean)
		changed[at] ^= 1 << rand.IntN(8)
		must(t, os.WriteFile(path, changed, 0o600))
		os.Remove(path + "-wal")
		os.Remove(path + "-shm")
		if says(t, config, want) {
			noticed++
		}
	}
	if noticed < n/4 {
		t.Errorf("only %d of %d changes were noticed", noticed, n)
	}
}

// says opens, verifies and reads, and reports whether any of it noticed a
// change. If none did, all that is read must be as it was written.
func says(t *testing.T, config store.Config, want []postern.Event) bool {
	t.Helper()
	db, err := store.Open(t.Context(), config)
	if err != nil {
		return true
	}
	defer db.Close()
	r, err := db.Timeline().VerifyLog(t.Context())
	if err != nil || len(r.Problems) > 0 {
		return true
	}
	got, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	if err != nil {
		return true
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("the timeline verifies, and is not the one that was written")
	}
	return false
}

// TestEveryByteOfAnEntryCounts changes each byte of each entry, written in its row as
// earlier versions did.
func TestEveryByteOfAnEntryCounts(t *testing.T) {
	db := storetest.Open(t)
	fill(t, db, 4)
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	must(t, err)
	for _, e := range events {
		line, err := timeline.Encode(e)
		must(t, err)
		for i := range line {
			set := func(text []byte) {
				must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.Exec(ctx, `UPDATE log_events SET line = $1 WHERE idx = $2`, string(text), e.Index)
					return err
				}))
			}
			changed := bytes.Clone(line)
			changed[i] ^= 1
			set(changed)
			if r := verify(t, db); len(r.Problems) == 0 {
				t.Errorf("entry %d, byte %d changed, and nothing said", e.Index, i)
			}
			set(line)
		}
	}
	if r := verify(t, db); len(r.Problems) > 0 {
		t.Errorf("all changes undone: %v", r.Problems)
	}
}

// tmpfs mounts a small file system and returns where.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	posterntest.NeedRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		posterntest.Missing(t, "needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := tmpfs(t, "4m")
	config := store.Config{URL: filepath.Join(dir, "postern.db"), Key: storetest.Key}
	db, err := store.Open(t.Context(), config)
	must(t, err)
	defer db.Close()
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 2<<20), 0o600))

	var acked []string
	text := strings.Repeat("x", 2000)
	var failed error
	for i := 0; failed == nil; i++ {
		object := strconv.Itoa(i)
		if failed = db.Append(t.Context(), postern.Event{Kind: "test", Object: object, Reason: text}); failed == nil {
			acked = append(acked, object)
		}
	}
	if postern.CodeOf(failed) != postern.Unavailable || postern.HintOf(failed) == "" ||
		!strings.Contains(failed.Error(), "the disk is full") {
		t.Fatalf("on a full disk: %v", failed)
	}
	checkAcked(t, db, acked) // reading goes on

	must(t, os.Remove(ballast))
	must(t, db.Append(t.Context(), postern.Event{Kind: "test", Object: "after"}))
	checkAcked(t, db, append(acked, "after"))

	// SQLite calls it an I/O error when it opens the file.
	must(t, db.Close())
	if err := os.WriteFile(ballast, make([]byte, 8<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if _, err := store.Open(t.Context(), config); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("open on a full disk: %v", err)
	}
}

func TestReadOnlyFile(t *testing.T) {
	dir := tmpfs(t, "8m")
	config := store.Config{URL: filepath.Join(dir, "postern.db"), Key: storetest.Key}
	db, err := store.Open(t.Context(), config)
	must(t, err)
	must(t, db.Close())
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	db, err = store.Open(t.Context(), config)
	if err == nil {
		err = db.Append(t.Context(), postern.Event{Kind: "test"})
		db.Close()
	}
	if postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("on a read-only disk: %v", err)
	}
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	db = storetest.OpenConfig(t, config)
	must(t, db.Append(t.Context(), postern.Event{Kind: "test", Object: "after"}))
	checkAcked(t, db, []string{"after"})
	must(t, db.Close())
}

// TestDamagedFileSaysToRestore overwrites a database from some place on.
func TestDamagedFileSaysToRestore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	config := store.Config{URL: path, Key: storetest.Key}
	db, err := store.Open(t.Context(), config)
	must(t, err)
	fill(t, db, 300)
	must(t, db.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	for _, from := range []int{0, 4096, 3 * 4096} {
		text := slices.Clone(whole)
		for i := range text[from:] {
			text[from+i] = 0xa5
		}
		must(t, os.WriteFile(path, text, 0o600))
		db, err := store.Open(t.Context(), config)
		if err == nil {
			_, err = db.Timeline().VerifyLog(t.Context())
			must(t, db.Close())
		}
		if postern.CodeOf(err) != postern.Unavailable || !store.IsOutage(err) ||
			postern.HintOf(err) != "restore the database from a backup" {
			t.Errorf("damaged from byte %d on: %v (%s)", from, err, postern.HintOf(err))
		}
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	must(t, os.WriteFile(path, nil, 0o644))
	db := storetest.OpenConfig(t, store.Config{URL: path})
	must(t, db.Append(t.Context(), postern.Event{Kind: "test"}))
	files, err := filepath.Glob(path + "*")
	must(t, err)
	if len(files) < 3 {
		t.Errorf("files are %v", files)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", file, info.Mode().Perm())
		}
	}
}

func TestPostgreSQLComesBack(t *testing.T) {
	server := posterntest.StartPostgreSQL(t)
	config := store.Config{URL: server.Database()}
	db := storetest.OpenConfig(t, config)
	var acked []string
	for i, end := range []func(){server.Stop, server.Kill, server.Stop} {
		before := fmt.Sprintf("before %d", i)
		must(t, db.Append(t.Context(), postern.Event{Kind: "test", Object: before}))
		end()
		if err := db.Append(t.Context(), postern.Event{Kind: "test"}); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("a write while it is unavailable: %v", err)
		}
		if _, err := db.Generation(t.Context()); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("a read while it is unavailable: %v", err)
		}
		if _, err := store.Open(t.Context(), store.Config{
			URL: config.URL,
			Key: storetest.Key,
		}); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("open while it is unavailable: %v", err)
		}
		server.Start()
		after := fmt.Sprintf("after %d", i)
		must(t, db.Append(t.Context(), postern.Event{Kind: "test", Object: after}))
		acked = append(acked, before, after)
		checkAcked(t, db, acked)
	}
}

// TestPostgreSQLDiesUnderLoad stops the server in the middle of two servers'
// writes: every error is Unavailable, nothing that was acknowledged is lost.
func TestPostgreSQLDiesUnderLoad(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	config := store.Config{URL: pg.Database()}
	servers := []*store.DB{storetest.OpenConfig(t, config), storetest.OpenConfig(t, config)}
	var mu sync.Mutex
	var acked []string
	var enough atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				object := fmt.Sprintf("%d-%d", i, n)
				err := servers[i%2].Append(t.Context(), postern.Event{Kind: "test", Object: object})
				switch {
				case err == nil:
					mu.Lock()
					acked = append(acked, object)
					mu.Unlock()
					enough.Add(1)
				case postern.CodeOf(err) != postern.Unavailable:
					t.Errorf("not Unavailable: %v", err)
					return
				default:
					time.Sleep(5 * time.Millisecond) // as a caller would, before it tries again
				}
			}
		})
	}
	waitFor := func(n int64) {
		for enough.Store(0); enough.Load() < n && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	for _, end := range []func(){pg.Kill, pg.Stop} {
		waitFor(200)
		end()
		pg.Start()
	}
	waitFor(200)
	close(stop)
	wg.Wait()
	checkAcked(t, servers[0], acked)
}

func TestPostgreSQLReadOnly(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	url := pg.Database()
	db := storetest.OpenConfig(t, store.Config{URL: url})
	pg.Exec(url, "ALTER SYSTEM SET default_transaction_read_only = on")
	pg.Stop()
	pg.Start()
	err := db.Append(t.Context(), postern.Event{Kind: "test"})
	if postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("on a read-only database: %v", err)
	}
	if _, err := db.Generation(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
	var perr *postern.Error
	if !errors.As(err, &perr) || strings.Contains(perr.Error(), "password") {
		t.Errorf("the error is %v", err)
	}
}
