package libvirt

import (
	_ "embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/postern-project/postern"
)

// tables say what the numbers and the bytes of messages mean.
type tables struct {
	programs []Program
	types    []typeInfo
	fields   []fieldInfo
	names    [][]named

	errorType, holeType uint16 // of the payloads of errors and of holes in streams
	errorCode           uint16 // among names
}

// known are the tables that are used: those of protocol.txt, made when they are first
// needed, or what Load made of them.
func known() *tables {
	if t := loaded.tables.Load(); t != nil {
		return t
	}
	return builtin()
}

var builtin = sync.OnceValue(func() *tables {
	s, err := readTables(protocol)
	if err == nil {
		var t *tables
		if t, err = s.compile(); err == nil {
			return t
		}
	}
	panic("protocol.txt: " + err.Error())
})

//go:embed protocol.txt
var protocol string

// loaded is what Load has read.
var loaded struct {
	sync.Mutex
	files  []protocolFile
	tables atomic.Pointer[tables]
}

type protocolFile struct {
	name string
	text []byte
}

// Bounds of what is read: libvirt's largest protocol file has 230 KB.
const (
	maxProtocolFile  = 4 << 20
	maxProtocolFiles = 64
)

// Installed returns where protocol files of this host's libvirt are: beside its sources,
// and where packages and administrators put them.
func Installed() (paths []string) {
	for _, glob := range []string{"/usr/src/libvirt-*", "/usr/share/postern/libvirt", "/etc/postern/libvirt"} {
		found, _ := filepath.Glob(glob) // the patterns are right
		paths = append(paths, found...)
	}
	return paths
}

// Load adds protocol files of libvirt's (src/remote/remote_protocol.x and others), or
// all in a directory, to what is known: programs, procedures and types that are newer than
// this package. What they say of known procedures replaces it. They are read together, so
// that their order says nothing.
//
// A NotFound error says that a file cannot be read, an Invalid error that one is not
// understood; nothing is added then. Messages that were decoded before stay as they are.
// Load is safe for concurrent use.
func Load(paths ...string) error {
	loaded.Lock()
	defer loaded.Unlock()
	files := loaded.files
	for _, path := range paths {
		found, err := protocolFiles(path)
		if err != nil {
			return postern.Errorf(postern.NotFound, "the protocol file: %w", err)
		}
		files = append(files, found...)
	}
	if len(files) == len(loaded.files) {
		return nil
	}
	t, err := compileFiles(files)
	if err != nil {
		return postern.Errorf(postern.Invalid, "%w", err).
			WithHint("protocol files are those of libvirt's sources, such as src/remote/remote_protocol.x")
	}
	loaded.files = files
	loaded.tables.Store(t)
	return nil
}

// compileFiles makes tables of protocol.txt and protocol files.
func compileFiles(files []protocolFile) (*tables, error) {
	s, err := readTables(protocol)
	if err != nil {
		return nil, err
	}
	var enums []procedureEnum
	for _, f := range files {
		found, err := s.readProtocol(f.text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		enums = append(enums, found...)
	}
	for _, e := range enums { // when the types of all files are known
		if err := s.procedures(e); err != nil {
			return nil, err
		}
	}
	return s.compile()
}

// protocolFiles reads a file, or those in a directory: all of libvirt's end in protocol.x.
func protocolFiles(path string) (files []protocolFile, err error) {
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir() || name != path && !strings.HasSuffix(name, "protocol.x"):
			return err
		case len(files) == maxProtocolFiles:
			return fmt.Errorf("%s holds more than %d protocol files", path, maxProtocolFiles)
		}
		text, err := readBounded(name, maxProtocolFile)
		files = append(files, protocolFile{name, text})
		return err
	})
	return files, err
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, err
}
