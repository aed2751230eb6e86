package posterntest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgreSQL is a server of the test's own, from Debian's package, reached over
// a Unix socket. In a benchmark it flushes every commit, as a real one does. In a test it
// leaves that to the kernel, which loses nothing when a process ends.
type PostgreSQL struct {
	t         testing.TB
	dir       string
	cred      *syscall.Credential // the user it runs as, when the test is root
	cmd       *exec.Cmd           // nil while it is stopped
	stdin     io.WriteCloser
	port      int // on loopback, 0 while it listens on the socket alone
	databases atomic.Int64
}

// StartPostgreSQL makes and starts a server. It is stopped and removed when the
// test ends.
func StartPostgreSQL(t testing.TB) *PostgreSQL {
	t.Helper()
	initdb := Need(t, "initdb")
	p := &PostgreSQL{t: t}
	var err error
	// t.TempDir is closed to the user that the server must run as.
	if p.dir, err = os.MkdirTemp("", "postern-pg-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(p.dir) })
	if os.Geteuid() == 0 {
		p.cred = unprivileged(t)
		if err := os.Chown(p.dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := p.command(initdb, "--no-sync", "--no-instructions", "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C.UTF-8", "--pgdata="+p.data())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.end("QUIT")
		}
	})
	p.Start()
	return p
}

// unprivileged returns a user for a server that refuses to be root.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	Missing(t, "needs a user postgres or nobody")
	return nil
}

// Dir is a directory of the server's own, which is removed with it.
func (p *PostgreSQL) Dir() string { return p.dir }

// ServeTLS starts the server again, with more lines in postgresql.conf and
// pg_hba.conf, on loopback as well, and returns its port there. The files that
// the lines name are in a directory inside Dir, which is given to its user.
func (p *PostgreSQL) ServeTLS(files, conf, hba string) (port int) {
	p.t.Helper()
	p.Stop()
	err := filepath.WalkDir(files, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || p.cred == nil {
			return err
		}
		return os.Chown(path, int(p.cred.Uid), int(p.cred.Gid))
	})
	if err != nil {
		p.t.Fatal(err)
	}
	local := "local all all trust\n" // for the tests themselves
	for name, text := range map[string]string{"postgresql.auto.conf": conf, "pg_hba.conf": local + hba + "\n"} {
		if err := os.WriteFile(filepath.Join(p.data(), name), []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	p.port = FreePort(p.t)
	p.Start()
	return p.port
}

// addresses returns where it listens besides its socket.
func (p *PostgreSQL) addresses() string {
	if p.port == 0 {
		return ""
	}
	return "127.0.0.1"
}

func (p *PostgreSQL) fsync() string {
	if _, ok := p.t.(*testing.B); ok {
		return "on"
	}
	return "off"
}

func (p *PostgreSQL) data() string { return filepath.Join(p.dir, "data") }

func (p *PostgreSQL) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	return cmd
}

// keeper runs the server until it reads a signal's name, or the test process
// is gone.
const keeper = `"$@" & read sig || sig=QUIT; kill -"$sig" $!; wait $!`

// Start starts the server, which must be stopped, and waits until it answers.
func (p *PostgreSQL) Start() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = p.command("/bin/sh", "-c", keeper, "sh", Need(p.t, "postgres"), "-D", p.data(), "-k", p.dir,
		"-c", "listen_addresses="+p.addresses(), "-c", "fsync="+p.fsync(), "-c", "shared_buffers=16MB", "-c",
		"max_connections=60")
	if p.port != 0 {
		p.cmd.Args = append(p.cmd.Args, "-c", fmt.Sprintf("port=%d", p.port))
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.URL("postgres"))
		if err == nil {
			conn.Close(ctx)
			return
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			p.t.Fatalf("PostgreSQL does not answer: %v\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop stops the server as an administrator would: connections are cut.
func (p *PostgreSQL) Stop() { p.end("INT") }

// Kill ends the server as a crash would: nothing is written any more, and the
// next start recovers.
func (p *PostgreSQL) Kill() { p.end("QUIT") }

func (p *PostgreSQL) end(signal string) {
	fmt.Fprintln(p.stdin, signal)
	p.stdin.Close()
	_ = p.cmd.Wait() // its status is that of the signal
	p.cmd = nil
}

// URL returns the URL of a database on the server.
func (p *PostgreSQL) URL(database string) string {
	at := "postgres://postgres@/" + database + "?connect_timeout=60&host=" + url.QueryEscape(p.dir)
	if p.port != 0 { // which is also part of the socket's name
		at += fmt.Sprintf("&port=%d", p.port)
	}
	return at
}

// Database makes an empty database and returns its URL.
func (p *PostgreSQL) Database() string {
	p.t.Helper()
	return p.copyOf("template1")
}

// Copy makes a copy of a database that nothing is connected to, both by their URLs.
func (p *PostgreSQL) Copy(of string) string {
	p.t.Helper()
	u, err := url.Parse(of)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.copyOf(strings.TrimPrefix(u.Path, "/"))
}

func (p *PostgreSQL) copyOf(template string) string {
	p.t.Helper()
	name := fmt.Sprintf("postern%d", p.databases.Add(1))
	p.Exec(p.URL("postgres"), "CREATE DATABASE "+name+" TEMPLATE "+template)
	return p.URL(name)
}

// Exec runs SQL on a database, as its administrator.
func (p *PostgreSQL) Exec(url, sql string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}
