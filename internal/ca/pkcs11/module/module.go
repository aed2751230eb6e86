// Package module is the process that loads a PKCS#11 module, the one place that
// calls C. It answers net/rpc over a socket, to the process that started it alone.
package module

import (
	"errors"
	"net"
	"net/rpc"
	"os"
)

// Command is the hidden argument with which Postern calls [Serve].
const Command = "pkcs11-module"

// The methods, for net/rpc.
const (
	Open     = "Module.Open"     // OpenArgs, None
	Find     = "Module.Find"     // Key, None
	Public   = "Module.Public"   // Key, []byte
	Generate = "Module.Generate" // GenerateArgs, []byte
	Sign     = "Module.Sign"     // SignArgs, []byte
)

// OpenArgs name a token, and log in to it.
type OpenArgs struct {
	Path  string            // of the module, for dlopen(3)
	Token map[string]string // what the token must be, by attribute of RFC 7512
	PIN   string            // empty: none is known
}

// Key names a key on the token: by its label (CKA_LABEL), its ID (CKA_ID) or both.
type Key struct {
	Label string
	ID    []byte
}

// GenerateArgs say what key to make.
type GenerateArgs struct {
	Key   Key
	Curve []byte // ECParameters; nil: RSA
	Bits  int    // of RSA
}

// SignArgs say what to sign.
type SignArgs struct {
	Key  Key
	RSA  bool   // with PKCS #1 v1.5; else ECDSA
	Data []byte // the digest; for RSA a DigestInfo (RFC 8017 section 9.2)
}

// None is the reply of calls that only report whether they failed.
type None struct{}

// What may fail, besides what the module says itself.
var (
	ErrNoModule = errors.New("its module cannot be loaded")
	ErrNoToken  = errors.New("there is no such token")
	ErrTokens   = errors.New("there are several such tokens")
	ErrNoPIN    = errors.New("it wants a PIN")
	ErrWrongPIN = errors.New("it does not take the PIN")
	ErrLocked   = errors.New("it is locked, after too many wrong PINs")
	ErrNoKey    = errors.New("there is no such key on it")
	ErrKeys     = errors.New("there are several such keys on it")
	ErrWithout  = errors.New("this program was built without cgo, which PKCS#11 needs")
)

// Remembered returns the error of this package that an error of net/rpc, which
// has its text alone, stands for; any other is returned as it is.
func Remembered(err rpc.ServerError) error {
	for _, e := range []error{
		ErrNoModule, ErrNoToken, ErrTokens, ErrNoPIN, ErrWrongPIN, ErrLocked, ErrNoKey, ErrKeys,
		ErrWithout,
	} {
		if err.Error() == e.Error() {
			return e
		}
	}
	return err
}

// Descriptor is where Serve finds its end of the socket.
const Descriptor = 3

// Serve answers on the socket until the other end closes it.
func Serve() error {
	f := os.NewFile(Descriptor, "socket")
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	f.Close()
	s := rpc.NewServer()
	if err := s.Register(&Module{}); err != nil {
		return err
	}
	s.ServeConn(conn)
	return nil
}

// The ECParameters of the curves (RFC 5480 section 2.1.1).
var (
	P256 = []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
	P384 = []byte{6, 5, 0x2b, 0x81, 4, 0, 34}
	P521 = []byte{6, 5, 0x2b, 0x81, 4, 0, 35}
)
