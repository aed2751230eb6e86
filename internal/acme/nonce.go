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
// them: making one keeps nothing.
//
// RFC 8555 section 6.5 asks that a nonce cannot be predicted, and that one which
// has appeared in a request is not valid again. The random bytes of a nonce name one
// of a fixed number of slots, and a slot keeps the time of the newest nonce that was
// used in it: one that is not newer is refused. So none is valid twice, however many
// are used and whatever their number, nothing grows. The price is that a nonce is
// refused if a newer one of its slot was used first: at 100 requests a second, each
// a second after it got its nonce, 1 in 650. Its client gets badNonce and a new nonce,
// and sends the request again, as section 6.5 has it do.
//
// Where several servers answer for one store, they make nonces with one key, which
// the store has, and each takes those of the others. What an account signs is used
// up in the store's slots, so it is valid once on all servers. What a key signs that
// belongs to no account (new-account, revoke-cert) can be sent by any client, so it is
// used up in the memory of the server alone and writes nothing. An attacker who
// records such a request can replay it once at each other server while the nonce is
// valid, and changes nothing by it: the account exists, the certificate is revoked.
//
// A slot whose time is later by more than [NonceReset] was set while a clock was
// wrong, and is used as if it were empty.
const (
	nonceLife  = 30 * time.Minute
	NonceSlots = 1 << 16 // what the first two random bytes can name
	NonceReset = 2 * nonceLife
)

type nonces struct {
	now    func() time.Time
	key    [32]byte
	shared Store // keeps the slots of what accounts sign; nil: they are here
	began  int64 // older ones were used up in a memory that is gone

	mu    sync.Mutex
	made  int64             // the time in the newest nonce made here
	slots [NonceSlots]int64 // times, as in nonces
}

func newNonces(ctx context.Context, cfg Config, store Store) (*nonces, error) {
	n := &nonces{now: cfg.Now, began: cfg.Now().UnixMicro()}
	if !cfg.Shared {
		rand.Read(n.key[:])
		return n, nil
	}
	n.shared = store
	var err error
	n.key, err = store.NonceKey(ctx)
	return n, err
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
	binary.BigEndian.PutUint64(b[8:], uint64(n.time()))
	copy(b[16:], n.sum(b[:16]))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// time returns the time in microseconds, and a later one each time.
func (n *nonces) time() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made = max(n.made+1, n.now().UnixMicro())
	return n.made
}

// nonce is one that was made here, or by another server of the same store.
type nonce struct {
	slot uint16
	made int64 // in microseconds since 1970
}

// parse reads a nonce, and reports whether it was made here and has not expired.
// It writes nothing.
func (n *nonces) parse(s string) (nonce, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != 32 || !hmac.Equal(b[16:], n.sum(b[:16])) {
		return nonce{}, false
	}
	c := nonce{slot: binary.BigEndian.Uint16(b), made: int64(binary.BigEndian.Uint64(b[8:]))}
	return c, n.now().Sub(time.UnixMicro(c.made)).Abs() <= nonceLife
}

// use uses a nonce up, and reports whether it was valid. It was in a request that an
// account has signed, or a key that belongs to none.
func (n *nonces) use(ctx context.Context, c nonce, account bool) (bool, error) {
	if account && n.shared != nil {
		return n.shared.UseNonce(ctx, c.slot, c.made)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	newest := n.slots[c.slot]
	if c.made < n.began || c.made <= newest && newest <= c.made+NonceReset.Microseconds() {
		return false, nil
	}
	n.slots[c.slot] = c.made
	return true, nil
}
