package otp

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/postern-project/postern"
)

const (
	maxImport  = 64 << 20 // bytes of a file that is imported
	maxSkipped = 1000     // reasons that are kept; the rest is counted
)

// ImportOptions says how a file is to be read.
type ImportOptions struct {
	// Format is the personalization tool's flexible format, as it was set there.
	Format string
	// Password is called once for the password of an encrypted file; nil: there is none.
	Password func() ([]byte, error)
	// Key is the key that a PSKC file was encrypted with.
	Key []byte
}

// Import is the content of a file that another program wrote.
type Import struct {
	Keys     []*Key
	OATH     []*ImportedOATH
	Counters []Counter
	Disabled []string // public IDs of counters whose keys were disabled
	Clients  []*APIClient
	Skipped  []Skipped // entries that are not imported, at most 1000
	Unlisted int       // how many more are not imported

	options ImportOptions
	unit    string           // what Skipped.Place counts
	columns []string         // of a CSV file, from its header line
	owners  bool             // a CSV file has a user's name, resolver and realm first
	batches map[int64][]bool // of Google Authenticator: which parts were read
}

// ImportedOATH is a TOTP or HOTP secret, with its owner according to the file.
type ImportedOATH struct {
	*OATH
	Place   string // line or entry
	Account string // "" if the file names none
	Serial  string // of a hardware token
}

// Skipped is an entry of the file that is not imported. Neither field has text from a
// line that could not be read, which may be a secret.
type Skipped struct{ Place, Why string }

func (im *Import) place(n int) string { return fmt.Sprintf("%s %d", im.unit, n) }

func (im *Import) skip(n int, format string, args ...any) {
	im.skipAt(im.place(n), fmt.Sprintf(format, args...))
}

func (im *Import) skipAt(place, why string) {
	if len(im.Skipped) == maxSkipped {
		im.Unlisted++
		return
	}
	im.Skipped = append(im.Skipped, Skipped{place, why})
}

// ReadImport reads keys, authenticators, counters and API clients. It detects the
// formats that docs/import.md lists; only for a log in the personalization tool's
// flexible format that format must be given. A file may be UTF-8 or UTF-16 with any
// line ends. Entries that are not understood, or cannot be used here, are in Skipped.
// It fails if nothing of the file can be read.
func ReadImport(r io.Reader, o ImportOptions) (*Import, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxImport+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxImport {
		return nil, postern.Errorf(postern.Invalid, "the file is longer than %d bytes", maxImport).
			WithHint("split it; the order does not matter")
	}
	im := &Import{options: o, unit: "line", batches: map[int64][]bool{}}
	if err := im.read(b); err != nil {
		return nil, err
	}
	im.missingBatches()
	return im, nil
}

func (im *Import) read(b []byte) error {
	if IsSQLite(b) {
		return postern.Errorf(postern.Invalid, "the file is an SQLite database").
			WithHint("give its name rather than its contents")
	}
	b, err := plainText(b)
	if err != nil {
		return err
	}
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	switch {
	case bytes.Contains(b, []byte("-----BEGIN PGP MESSAGE")):
		return postern.Errorf(postern.Invalid, "the file is encrypted with OpenPGP").
			WithHint("decrypt it first, as with gpg --decrypt FILE, and give what comes out on standard input")
	case im.options.Format != "":
		return im.readFlexible(b, im.options.Format)
	case keyContainer.Match(b[:min(len(b), 4096)]):
		return im.readPSKC(b)
	case len(trimmed) > 0 && trimmed[0] == '{':
		return im.readJSON(b)
	case sqlStatement.Match(b):
		im.readSQL(b)
	case googleSecret.Match(trimmed):
		im.readGoogle(b)
	default:
		im.readLines(b)
	}
	return nil
}

// readLines reads lines of any of the formats.
func (im *Import) readLines(b []byte) {
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := strings.TrimSpace(string(line))
		scheme, _, _ := strings.Cut(text, ":")
		switch {
		case text == "":
		case strings.HasPrefix(text, "#"):
			im.owners = im.owners || ownersComment.MatchString(text)
		case strings.EqualFold(scheme, "otpauth"):
			im.readURL(n, text)
		case strings.EqualFold(scheme, "otpauth-migration"):
			im.readMigration(n, text)
		case usersLine.MatchString(text):
			im.readUser(n, text)
		default:
			im.readCSV(n, text)
		}
	}
}

// readFields detects a line's format by fields that only that format has.
func (im *Import) readFields(line int, f []string) {
	switch {
	case f[0] == "LOGGING START":
		return
	case len(f) >= 6 && isSecretField(f[2], privateIDLength) && isSecretField(f[3], 16):
		im.addKey(line, keyFields{
			serial: f[0], publicID: f[1], privateID: f[2], key: f[3], created: f[5],
			active: "1",
		})
		return
	case len(f) >= 9 && isFlag(f[0]) && isNumber(f[1]) && isNumber(f[4]) && isNumber(f[7]):
		im.addCounter(line, counterFields{
			active: f[0], modified: f[2], publicID: f[3], counter: f[4], use: f[5], low: f[6], high: f[7], nonce: f[8],
		})
		return
	case len(f) >= 4 && len(f) <= 7 && isNumber(f[0]) && isFlag(f[1]) && isNumber(f[2]):
		im.addClient(line, clientFields{id: f[0], active: f[1], created: f[2], secret: f[3]})
		return
	case im.readTokenRow(line, f):
		return
	}
	// The traditional log: the local date has commas in some countries.
	for i := 2; i+2 < len(f); i++ {
		if isSecretField(f[i+1], privateIDLength) && isSecretField(f[i+2], 16) {
			im.addKey(line, keyFields{publicID: f[i], privateID: f[i+1], key: f[i+2], active: "1"})
			return
		}
	}
	switch kind, _, _ := strings.Cut(f[0], ":"); {
	case len(f) >= 12 && (kind == "OATH-HOTP" || kind == "Static Password" || kind == "Challenge-Response"),
		len(f) >= 12 && kind == "Swap":
		im.skip(line, "not a Yubico OTP slot")
	case len(f) >= 6 && isNumber(f[0]) && (f[2] == "" || isNumber(f[2])) && (isHex(f[3]) || f[3] == ""):
		im.skip(line, "not a Yubico OTP slot") // HOTP, HMAC or a password, in Yubico's format
	default:
		im.skip(line, "not a line of a known format")
	}
}
