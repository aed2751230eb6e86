package store

import (
	"context"
	"time"

	"github.com/postern-project/postern/otp"
)

// otpCached is a value and the generation that it was read in. It is valid while
// that is the newest.
type otpCached[T any] struct {
	value      T
	generation int64
}

// forget empties the cache. The caller has the lock, or o is not shared yet.
func (o *OTP) forget(generation int64) {
	o.generation = generation
	o.keys = map[string]otpCached[*otp.Key]{}
	o.clients = map[int64]otpCached[*otp.APIClient]{}
}

// otpComparison is a comparison of generations that is under way.
type otpComparison struct {
	done chan struct{}
	err  error // once it is done
}

// poll makes sure that the generation was compared with the database's a moment ago. One
// caller does so for all, before the others would have to wait for it: the database may be far.
func (o *OTP) poll(ctx context.Context) error {
	for range 2 { // the second comparison began after this call, whatever is written meanwhile
		o.mu.Lock()
		age := time.Since(o.polled)
		c := o.comparing
		if c == nil && age >= otpPoll/2 {
			c = &otpComparison{done: make(chan struct{})}
			o.comparing = c
			go o.compare(c)
		}
		o.mu.Unlock()
		if age < otpPoll {
			return nil
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return o.db.wrap(ctx.Err(), "read from the database")
		}
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// compare compares the generation with the database's, and forgets what was read in another.
func (o *OTP) compare(c *otpComparison) {
	defer close(c.done)
	ctx, cancel := context.WithTimeout(context.Background(), otpBatchTimeout)
	defer cancel()
	began := time.Now()
	g, err := o.db.Generation(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	c.err = err
	latest := o.comparing == c // forgetPoll wants no later one
	if latest {
		o.comparing = nil
	}
	if err == nil && latest {
		o.polled = began
	}
	if err == nil && (latest && g != o.generation || g > o.generation) {
		o.forget(g)
	}
}

// forgetPoll has the generation compared again before a cached value is used.
func (o *OTP) forgetPoll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.polled, o.comparing = time.Time{}, nil
}

// cached returns the cached value of id, if it is still valid.
func cached[K comparable, V any](o *OTP, in func() map[K]otpCached[V], id K) (v V, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, ok := in()[id]
	if !ok || h.generation != o.generation {
		return v, false
	}
	return h.value, true
}

// cache caches a value, in place of any others if the cache is full.
func cache[K comparable, V any](o *OTP, in func() map[K]otpCached[V], id K, v V, generation int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := in()
	for old := range m {
		if len(m) < otpCacheSize {
			break
		}
		delete(m, old)
	}
	m[id] = otpCached[V]{v, generation}
}

func (o *OTP) cachedKeys() map[string]otpCached[*otp.Key]         { return o.keys }
func (o *OTP) cachedClients() map[int64]otpCached[*otp.APIClient] { return o.clients }
