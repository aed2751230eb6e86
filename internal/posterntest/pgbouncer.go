package posterntest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer starts a pooler, from Debian's package, before the databases of the
// server, and returns a database's URL through it. The mode is session, transaction
// or statement. It is stopped when the test ends.
func (p *PostgreSQL) PgBouncer(database, mode string) string {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.dir, "bouncer-")
	if err != nil {
		p.t.Fatal(err)
	}
	port := FreePort(p.t)
	config := fmt.Sprintf(`[databases]
%s = host=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 40
logfile = %s
`, database, p.dir, port, mode, filepath.Join(dir, "log"))
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if p.cred != nil {
		if err := os.Chown(dir, int(p.cred.Uid), int(p.cred.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
	cmd := exec.Command(Need(p.t, "pgbouncer"), file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred}
	ended, err := startTied(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended // its status is that of the signal
	})
	at := (&url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: fmt.Sprintf("127.0.0.1:%d", port),
		Path: "/" + database, RawQuery: "sslmode=disable",
	}).String()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, at)
		if err == nil {
			conn.Close(ctx)
			return at
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			p.t.Fatalf("PgBouncer does not answer: %v\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
