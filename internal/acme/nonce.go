package acme

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"
)

// A nonce is 8 bytes of random, 8 bytes of time and 16 bytes of an HMAC over
// them: handing one out costs no memory. Used ones are remembered until they
// expire, here or, where several servers answer, in the store.
const (
	nonceLife = 30 * time.Minute
	maxUsed   = 1 << 18 // remembered in one generation
)

type nonces struct {
	now func() time.Time
	key [32]byte
	use func(ctx context.Context, nonce string, expires time.Time) (bool, error) // nil: remembered here

	mu       sync.Mutex
	old, cur map[[8]byte]struct{}
	turned   time.Time
	floor    time.Time // nonces made before are refused: they are forgotten
}

func newNonces(ctx context.Context, cfg Config, store Store) (*nonces, error) {
	n := &nonces{now: cfg.Now, cur: map[[8]byte]struct{}{}, turned: cfg.Now()}
	if cfg.Shared {
		n.use = store.UseNonce
		var err error
		n.key, err = store.NonceKey(ctx)
		return n, err
	}
	rand.Read(n.key[:])
	return n, nil
}

func (n *nonces) sum(b []byte) []byte {
	m := hmac.New(sha256.New, n.key[:])
	m.Write(b)
	return m.Sum(nil)[:16]
}

// make returns a new nonce.
func (n *nonces) make() string {
	var b [32]byte
	rand.Read(b[:8])
	binary.BigEndian.PutUint64(b[8:], uint64(n.now().UnixMilli()))
	copy(b[16:], n.sum(b[:16]))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// nonce is one that was made here, or by another server of the same store.
type nonce struct {
	text string
	id   [8]byte
	made time.Time
}

// parse reads a nonce, and reports whether it was made here and has not expired.
// It writes nothing.
func (n *nonces) parse(s string) (nonce, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 32 || !hmac.Equal(b[16:], n.sum(b[:16])) {
		return nonce{}, false
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(b[8:])))
	age := n.now().Sub(made)
	return nonce{text: s, id: [8]byte(b[:8]), made: made}, age.Abs() <= nonceLife
}

// spend uses a nonce up, and reports whether that is the first time.
func (n *nonces) spend(ctx context.Context, c nonce) (bool, error) {
	if n.use != nil {
		return n.use(ctx, c.text, c.made.Add(nonceLife))
	}
	return n.remember(c.id, c.made, n.now()), nil
}

// remember keeps a used nonce in the younger of two generations. When it is
// full or old, the older is forgotten with all nonces of its time.
func (n *nonces) remember(id [8]byte, made, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.cur) >= maxUsed || now.Sub(n.turned) > nonceLife {
		if n.old != nil {
			n.floor = n.turned
		}
		n.old, n.cur, n.turned = n.cur, map[[8]byte]struct{}{}, now
	}
	if made.Before(n.floor) {
		return false
	}
	if _, used := n.cur[id]; used {
		return false
	}
	if _, used := n.old[id]; used {
		return false
	}
	n.cur[id] = struct{}{}
	return true
}
