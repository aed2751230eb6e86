package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
)

// Manifest says what a backup holds.
type Manifest struct {
	Version  int         `json:"version"` // of the format: 1
	Program  string      `json:"program"` // the version of postern that wrote it
	Made     time.Time   `json:"made"`
	Owner    string      `json:"owner,omitempty"` // the name of the user whom the state directory belongs to
	Log      string      `json:"log"`             // the timeline's public key
	Database string      `json:"database"`        // "sqlite", or "postgresql": then the database is not in it
	Holds    store.Facts `json:"holds"`
	Files    []File      `json:"files"`
	LeftOut  []string    `json:"left_out,omitempty"` // links that lead out of the state directory
}

// Whole reports whether the backup has the database.
func (m Manifest) Whole() bool { return m.Database == "sqlite" }

// Age returns how old the newest entry of the timeline is: what happened since is not in
// the backup.
func (m Manifest) Age() string {
	switch age := time.Since(m.Holds.Newest); {
	case age > 48*time.Hour:
		return fmt.Sprintf("%d days", int(age/(24*time.Hour)))
	default:
		return age.Truncate(time.Second).String()
	}
}

// File is one file of a backup.
type File struct {
	Name   string      `json:"name"` // below the state directory, with slashes
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"`
}

const (
	manifestName = "manifest.json"
	filesName    = "state/" // what comes before the names of the files in the archive
	maxManifest  = 64 << 20
)

// endMagic begins the last frame: that of a skippable frame of 32 bytes (RFC 8878, section
// 3.1.2).
var endMagic = []byte{0x50, 0x2A, 0x4D, 0x18, sha256.Size, 0, 0, 0}

const endSize = 8 + sha256.Size

// writer writes the layers of a backup.
type writer struct {
	tar  *tar.Writer
	zstd *zstd.Encoder
	sum  hash.Hash      // of what zstd wrote
	out  io.WriteCloser // what encrypts, or the file itself
}

func newWriter(w io.Writer, to []age.Recipient) (*writer, error) {
	b := &writer{sum: sha256.New(), out: plain{w}}
	var err error
	if len(to) > 0 {
		if b.out, err = age.Encrypt(w, to...); err != nil {
			return nil, postern.Errorf(postern.Invalid, "encrypt the backup: %w", err)
		}
	}
	if b.zstd, err = zstd.NewWriter(io.MultiWriter(b.out, b.sum)); err != nil {
		return nil, err
	}
	b.tar = tar.NewWriter(b.zstd)
	return b, nil
}

// plain is a writer that its owner closes.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// finish writes what ends the archive.
func (b *writer) finish() error {
	if err := errors.Join(b.tar.Close(), b.zstd.Close()); err != nil {
		return err
	}
	_, err := b.out.Write(b.sum.Sum(bytes.Clone(endMagic)))
	return errors.Join(err, b.out.Close())
}

// add writes one file of the archive.
func (b *writer) add(name string, mode fs.FileMode, size int64, at time.Time, r io.Reader) error {
	h := &tar.Header{Name: name, Mode: int64(mode.Perm()), Size: size, ModTime: at, Format: tar.FormatPAX}
	if err := b.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(b.tar, r)
	return err
}

func (b *writer) addFile(dir string, f File, at time.Time) error {
	r, err := os.Open(filepath.Join(dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return err
	}
	defer r.Close()
	return b.add(filesName+f.Name, f.Mode, f.Size, at, r)
}

// reader reads the layers of a backup.
type reader struct {
	*tar.Reader
	zstd *zstd.Decoder
	end  *endReader
}

// errDamaged says that a backup is not as it was written.
func errDamaged(format string, args ...any) error {
	return postern.Errorf(postern.Invalid, "the backup is damaged: "+format, args...).WithHint("use another backup")
}

const ageMagic = "age-encryption.org/"

// newReader opens a backup. Call zstd.Close at the end.
func newReader(r io.Reader, identities []age.Identity) (*reader, error) {
	buffered := bufio.NewReaderSize(r, 1<<20)
	head, _ := buffered.Peek(len(ageMagic))
	r = buffered
	switch {
	case string(head) != ageMagic:
	case len(identities) == 0:
		return nil, postern.Errorf(postern.Invalid, "the backup is encrypted").
			WithHint("give the file with the age identity that it was encrypted to")
	default:
		var err error
		if r, err = age.Decrypt(r, identities...); err != nil {
			if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
				return nil, postern.Errorf(postern.Denied, "the backup was encrypted to another identity")
			}
			return nil, errDamaged("%w", err)
		}
	}
	b := &reader{end: &endReader{r: r, sum: sha256.New()}}
	var err error
	if b.zstd, err = zstd.NewReader(b.end, zstd.WithDecoderMaxMemory(1<<30)); err != nil {
		return nil, err
	}
	b.Reader = tar.NewReader(b.zstd)
	return b, nil
}

func (b *reader) manifest() (m Manifest, err error) {
	h, err := b.Next()
	if err != nil {
		return m, postern.Errorf(postern.Invalid, "it is no backup of postern, or is damaged: %w", err)
	}
	if h.Name != manifestName || h.Size > maxManifest {
		return m, postern.Errorf(postern.Invalid, "it is no backup of postern: it begins with %q", h.Name)
	}
	if err := json.NewDecoder(b.Reader).Decode(&m); err != nil {
		return m, errDamaged("%w", err)
	}
	if m.Version != 1 {
		return m, postern.Errorf(postern.Invalid, "the backup has the format %d, which this version does not know",
			m.Version).WithHint("use a newer postern")
	}
	return m, nil
}

// extract writes the files of the manifest below dir. They are what the manifest says.
func (b *reader) extract(m Manifest, dir string) error {
	for _, f := range m.Files {
		h, err := b.Next()
		if err != nil {
			return errDamaged("%w", err)
		}
		if h.Name != filesName+f.Name || h.Size != f.Size || h.Typeflag != tar.TypeReg {
			return errDamaged("%q is in the place of %q", h.Name, f.Name)
		}
		if err := b.extractFile(f, dir); err != nil {
			return err
		}
	}
	if _, err := b.Next(); !errors.Is(err, io.EOF) {
		return errDamaged("it goes on after its last file: %w", err)
	}
	if _, err := io.Copy(io.Discard, b.zstd); err != nil {
		return errDamaged("%w", err)
	}
	return b.end.check()
}

func (b *reader) extractFile(f File, dir string) error {
	if !filepath.IsLocal(filepath.FromSlash(f.Name)) || strings.Contains(f.Name, `\`) {
		return errDamaged("it names the file %q", f.Name)
	}
	path := filepath.Join(dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), b.Reader); err != nil {
		return readOrWrite(err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		return errDamaged("%q is not the file that was written", f.Name)
	}
	return errors.Join(out.Chmod(f.Mode.Perm()), out.Sync(), out.Close())
}

// readOrWrite says whether a backup could not be read or its files not be written.
func readOrWrite(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return postern.Errorf(postern.Unavailable, "%w", err).WithHint("see that there is space for the state")
	}
	return errDamaged("%w", err)
}

// endReader reads what comes before the last frame, and hashes it.
type endReader struct {
	r    io.Reader
	sum  hash.Hash
	held []byte // at most endSize once all was read: the last frame
	buf  []byte
	err  error
}

func (e *endReader) Read(p []byte) (int, error) {
	if e.buf == nil {
		e.buf = make([]byte, 64<<10)
	}
	for e.err == nil && len(e.held) <= endSize {
		var n int
		n, e.err = e.r.Read(e.buf)
		e.held = append(e.held, e.buf[:n]...)
	}
	n := min(len(p), len(e.held)-endSize)
	if n <= 0 {
		return 0, e.err
	}
	e.sum.Write(e.held[:n])
	copy(p, e.held[:n])
	e.held = append(e.held[:0], e.held[n:]...)
	return n, nil
}

// check compares the hash with the last frame.
func (e *endReader) check() error {
	if !errors.Is(e.err, io.EOF) || len(e.held) != endSize || !bytes.Equal(e.held, e.sum.Sum(bytes.Clone(endMagic))) {
		return errDamaged("it is not what was written")
	}
	return nil
}
