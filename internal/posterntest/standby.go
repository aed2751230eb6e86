package posterntest

import (
	"context"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby makes and starts a streaming standby of the server. It is stopped and removed
// when the test ends.
func (p *PostgreSQL) Standby() *PostgreSQL {
	p.t.Helper()
	s := &PostgreSQL{t: p.t, cred: p.cred}
	var err error
	if s.dir, err = os.MkdirTemp("", "postern-pg-"); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { os.RemoveAll(s.dir) })
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
	cmd := s.command(Need(p.t, "pg_basebackup"), "--host="+p.dir, "--username=postgres", "--pgdata="+s.data(),
		"--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	p.t.Cleanup(func() {
		if s.cmd != nil {
			s.end("QUIT")
		}
	})
	s.Start()
	return s
}

// Synchronous has the server commit only what a standby has flushed, too, and waits
// until one does.
func (p *PostgreSQL) Synchronous() {
	p.t.Helper()
	p.Exec(p.URL("postgres"), "ALTER SYSTEM SET synchronous_standby_names = '*'")
	p.Exec(p.URL("postgres"), "SELECT pg_reload_conf()")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(ctx)
	for {
		var n int
		if err := conn.QueryRow(ctx, "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'").
			Scan(&n); err != nil {
			p.t.Fatal(err)
		}
		if n == 1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Promote makes a standby the primary.
func (p *PostgreSQL) Promote() {
	p.t.Helper()
	p.Exec(p.URL("postgres"), "SELECT pg_promote()")
}
