package store

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/postern-project/postern"
)

// How the text begins that says where a database is, unless it is a path.
var (
	urlScheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+):`)
	keyword   = regexp.MustCompile(`^\s*([A-Za-z_]+)\s*=`)
)

// IsPostgres reports whether a text is a connection string of PostgreSQL rather than
// the path of a SQLite file: a postgres:// or postgresql:// URL, or keywords and
// values as libpq reads them ("host=db dbname=postern"; PostgreSQL's documentation,
// section Connection Strings). It may still be wrong: see [Config.Validate].
func IsPostgres(text string) bool {
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return true
	}
	m := keyword.FindStringSubmatch(text)
	return m != nil && slices.Contains(libpqKeywords, m[1])
}

// libpqKeywords are all keywords of libpq.
var libpqKeywords = strings.Fields(`
	host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout
	client_encoding options application_name fallback_application_name keepalives keepalives_idle
	keepalives_interval keepalives_count tcp_user_timeout replication gssencmode sslmode sslnegotiation
	sslcompression sslcert sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni
	requirepeer ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version
	krbsrvname gsslib gssdelegation scram_client_key scram_server_key service servicefile
	target_session_attrs load_balance_hosts oauth_issuer oauth_client_id oauth_client_secret oauth_scope`)

// checkURL says what is wrong with the text that says where the database is. What it
// says does not repeat the text, which may hold a password.
func checkURL(text string) error {
	if !IsPostgres(text) {
		return checkPath(text)
	}
	c, err := pgx.ParseConfig(text)
	if err != nil {
		return postern.Errorf(postern.Invalid, "the database's connection string cannot be parsed").
			WithHint("write postgres://user@host/database, or host=… user=… dbname=…")
	}
	for _, name := range slices.Sorted(maps.Keys(c.RuntimeParams)) {
		switch name {
		case "application_name", "client_encoding", "options": // settings of PostgreSQL, too
			continue
		}
		if slices.Contains(libpqKeywords, name) { // pgx would take it for a setting
			return postern.Errorf(postern.Invalid, "%s in the database's connection string is not supported", name).
				WithHint("remove it, or set what it asks for on the PostgreSQL server")
		}
	}
	return nil
}

// checkPath refuses what is not meant as the path of a file, since SQLite would make
// one of that name.
func checkPath(text string) error {
	if m := urlScheme.FindStringSubmatch(text); m != nil {
		return postern.Errorf(postern.Invalid, "the database begins with %s:, and is neither a path nor a PostgreSQL "+
			"connection string", m[1]).
			WithHint("write postgres://user@host/database, or the path of a SQLite file")
	}
	if m := keyword.FindStringSubmatch(text); m != nil {
		return postern.Errorf(postern.Invalid, "%s is no keyword that a connection string begins with", m[1]).
			WithHint("write host=… user=… dbname=…; the path of a file with = in its name begins with ./")
	}
	return nil
}
