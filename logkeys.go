package postern

// The keys of structured log lines (log/slog). A key that is not here is not
// used; no value is ever a secret, a one-time code or a private key.
const (
	LogError     = "error"
	LogPerson    = "person"
	LogSerial    = "serial"
	LogAddress   = "address"
	LogPath      = "path"
	LogHost      = "host"
	LogKind      = "kind"
	LogID        = "id"
	LogReason    = "reason"
	LogCount     = "count"
	LogLost      = "lost"
	LogTook      = "took"
	LogPID       = "pid"
	LogListen    = "listen"
	LogVersion   = "version"
	LogFile      = "file"
	LogOrder     = "order"
	LogAccount   = "account"
	LogDatabase  = "database"
	LogCA        = "ca"
	LogDirectory = "directory"
)
