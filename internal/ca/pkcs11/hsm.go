package pkcs11

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
)

// hsm is a PKCS#11 token with keys. It is safe for concurrent use.
type hsm struct {
	uri     URI // of the token
	readPIN func(path string) ([]byte, error)

	mu      sync.Mutex
	process *process          // with the token open; nil: none
	refused [sha256.Size]byte // the hash of the PIN that the token did not take
	failure error             // how it failed last, at since
	since   time.Time
}

// pause is how long an HSM that failed is not tried again.
const pause = time.Second

// call calls the HSM's module. If a process that ran before fails, perhaps because
// the HSM was unplugged meanwhile, the call is repeated once with another process.
// Any error is Unavailable.
func (d *hsm) call(method string, args, reply any, limit time.Duration) error {
	var err error
	for range 2 {
		p, fresh, failure := d.ready()
		if failure != nil {
			return failure
		}
		err = p.call(method, args, reply, limit)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, module.ErrNoKey), errors.Is(err, module.ErrKeys):
			return d.unavailable(err)
		}
		last := fresh || errors.Is(err, errLate)
		d.drop(p, err, last)
		if last {
			break
		}
	}
	return d.unavailable(err)
}

// ready returns a process with the token open, and whether it is a new one.
func (d *hsm) ready() (p *process, fresh bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil {
		return d.process, false, nil
	}
	if time.Since(d.since) < pause {
		return nil, false, d.failure
	}
	if p, err = d.open(); err != nil {
		d.failure, d.since = d.unavailable(err), time.Now()
		return nil, false, d.failure
	}
	d.process = p
	return p, true, nil
}

// drop ends a process that failed. With rest, the HSM is not tried for a while: other
// calls fail at once, and not every request starts a process.
func (d *hsm) drop(p *process, why error, rest bool) {
	p.stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == p {
		d.process = nil
	}
	if rest {
		d.failure, d.since = d.unavailable(why), time.Now()
	}
}

// open starts a process and has it open the token.
func (d *hsm) open() (*process, error) {
	pin, err := d.pin()
	if err != nil {
		return nil, err
	}
	p, err := start()
	if err != nil {
		return nil, err
	}
	err = p.call(module.Open, module.OpenArgs{Path: d.uri.modulePath(), Token: d.uri.token, PIN: string(pin)},
		&module.None{}, callLimit)
	if err != nil {
		p.stop()
		if errors.Is(err, module.ErrWrongPIN) {
			d.refused = sha256.Sum256(pin)
		}
		return nil, err
	}
	return p, nil
}

// pin reads the PIN. One that the token refused is not tried again: after a few
// tries it locks itself.
func (d *hsm) pin() ([]byte, error) {
	if d.uri.PIN == "" {
		return nil, nil
	}
	data, err := d.readPIN(d.uri.PIN)
	if err != nil {
		return nil, err
	}
	pin := bytes.TrimRight(data, "\r\n")
	if sha256.Sum256(pin) == d.refused {
		return nil, module.ErrWrongPIN
	}
	return pin, nil
}

// unavailable returns an error of the HSM as callers see it.
func (d *hsm) unavailable(err error) error {
	hint := postern.HintOf(err)
	switch {
	case errors.Is(err, module.ErrNoModule):
		hint = "module-path= names the file of its module; without it p11-kit looks among those that it knows: apt " +
			"install p11-kit-modules"
	case errors.Is(err, module.ErrNoToken):
		hint = "plug it in; what is there: p11tool --provider FILE --list-tokens"
	case errors.Is(err, module.ErrTokens):
		hint = "name one by token=LABEL or serial=NUMBER"
	case errors.Is(err, module.ErrNoPIN):
		hint = "write it to a file of mode 0600 and name that in the URI: pin-source=/path"
	case errors.Is(err, module.ErrWrongPIN):
		hint = "write the right one to " + d.uri.PIN +
			"; the wrong one is not tried again, so that the HSM does not lock itself"
	case errors.Is(err, module.ErrLocked):
		hint = "unlock it with its vendor's tool"
	case errors.Is(err, module.ErrNoKey), errors.Is(err, module.ErrKeys):
		hint = "what is on it: p11tool --provider FILE --login --list-privkeys"
	case errors.Is(err, module.ErrWithout):
		hint = "build it with a C compiler: CGO_ENABLED=1 make build"
	case hint == "":
		hint = "see that it is plugged in, and what else says: p11tool --provider FILE --login --list-privkeys"
	}
	return postern.Errorf(postern.Unavailable, "the HSM %s: %w", d.uri, err).WithHint("%s", hint)
}
