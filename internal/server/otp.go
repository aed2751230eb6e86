package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// Mappings is libpam-yubico's list of accounts and keys, which is used here, too.
const Mappings = "/etc/yubikey_mappings"

// OneTime checks one-time passwords in a running server.
type OneTime struct {
	Keys    *store.OTP
	Checker *otp.Checker // for sshd, the portal and commands
	Service *otp.Service // the handler of /wsapi/
	outside *outsideService

	stop    context.CancelFunc
	watcher sync.WaitGroup
}

// NewOneTime returns a OneTime over a state, with a list of accounts and keys such as
// [Mappings]. Close it before the state.
func NewOneTime(st *state.State, mappings string, log *slog.Logger) (*OneTime, error) {
	keys := st.Store.OTP()
	if _, err := st.CheckRestored(context.Background()); err != nil {
		log.Error("no one-time passwords are accepted", postern.LogError, err)
		keys.Refuse(err)
	}
	fleet, err := keys.SyncConfig(context.Background())
	if err != nil {
		return nil, err
	}
	service, err := otp.NewService(otp.Config{Logger: log, Sync: fleet}, keys, st.Store)
	if err != nil {
		return nil, err
	}
	outside := &outsideService{keys: keys}
	check := otp.NewChecker(otp.CheckerConfig{Mappings: mappings, Peers: fleet.Peers, Logger: log}, keys, keys, st.Store.People(), outside, st.Store)
	o := &OneTime{Keys: keys, Checker: check, Service: service, outside: outside}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.watcher.Go(func() { watchRestored(ctx, st, keys, log) })
	return o, nil
}

// Close waits until all pending events are on the timeline.
func (o *OneTime) Close() error {
	err := errors.Join(o.Service.Close(), o.Checker.Close(), o.outside.close())
	o.stop()
	o.watcher.Wait()
	return err
}

// outsideService asks the outside validation service that is configured in the
// store, as it is configured now.
type outsideService struct {
	keys *store.OTP

	mu     sync.Mutex
	config string // of client
	client *otp.Client
}

// Verify implements [otp.Outside].
func (o *outsideService) Verify(ctx context.Context, code otp.Code) (otp.Answer, error) {
	c, err := o.current(ctx)
	if err != nil {
		return otp.Answer{}, err
	}
	return c.Verify(ctx, code)
}

// current returns a client as configured; it stays the same, and keeps its
// connections, as long as the configuration does.
func (o *outsideService) current(ctx context.Context) (*otp.Client, error) {
	config, err := o.keys.Outside(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if same := config.Fingerprint(); o.client == nil || o.config != same {
		client, err := otp.NewClient(config)
		if err != nil {
			return nil, err
		}
		if o.client != nil {
			o.client.Close()
		}
		o.config, o.client = same, client
	}
	return o.client, nil
}

func (o *outsideService) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client == nil {
		return nil
	}
	return o.client.Close()
}

// seenEvery is how often a server stores the length of the timeline.
const seenEvery = time.Second

// watchRestored stores the length of the timeline at intervals and when ctx ends. It
// refuses all codes if the timeline has become shorter: then the database was restored.
func watchRestored(ctx context.Context, st *state.State, keys *store.OTP, log *slog.Logger) {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for last := int64(0); ; {
		final := ctx.Err() != nil
		size, err := st.CheckRestored(context.WithoutCancel(ctx))
		switch {
		case errors.Is(err, state.ErrRestored):
			keys.Refuse(err)
			return
		case err == nil && size != last:
			if err := st.MarkSeen(size); err != nil {
				log.Error("cannot store the length of the timeline", postern.LogError, err)
			}
			last = size
		}
		if final {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
