package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// Mappings is libpam-yubico's list of accounts and keys, which is used here, too.
const Mappings = "/etc/yubikey_mappings"

// OneTime checks one-time passwords in a running server.
type OneTime struct {
	Keys     *store.OTP
	Checker  *otp.Checker // for sshd, the portal and commands
	Service  *otp.Service // the handler of /wsapi/
	upstream *upstreamService
	refused  *coalesce.Writer // SSH keys that were not enrolled

	stop    context.CancelFunc
	watcher sync.WaitGroup
}

// NewOneTime returns a OneTime over a state, with a list of accounts and keys such as
// [Mappings]. Close it before the state.
func NewOneTime(st *state.State, mappings string, log *slog.Logger) (*OneTime, error) {
	keys := st.Store.OTP()
	fleet, err := keys.SyncConfig(context.Background())
	if err != nil {
		return nil, err
	}
	service, err := otp.NewService(otp.Config{Logger: log, Sync: fleet}, keys, st.Store)
	if err != nil {
		return nil, err
	}
	upstream := &upstreamService{keys: keys}
	check := otp.NewChecker(otp.CheckerConfig{Mappings: mappings, Peers: fleet.Peers, Logger: log}, keys, keys,
		st.Store.People(), upstream, st.Store)
	o := &OneTime{
		Keys: keys, Checker: check, Service: service, upstream: upstream, refused: sshd.Refusals(st.Store, log),
	}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.watchRestored(ctx, st, log)
	return o, nil
}

// Close waits until all pending events are on the timeline.
func (o *OneTime) Close() error {
	err := errors.Join(o.Service.Close(), o.Checker.Close(), o.upstream.close(), o.refused.Close())
	o.stop()
	o.watcher.Wait()
	return err
}

// upstreamService asks the upstream validation service that is configured in the
// store, as it is configured now.
type upstreamService struct {
	keys *store.OTP

	mu     sync.Mutex
	config string // of client
	client *otp.Client
}

// Verify implements [otp.Upstream].
func (u *upstreamService) Verify(ctx context.Context, code otp.Code) (otp.Answer, error) {
	c, err := u.current(ctx)
	if err != nil {
		return otp.Answer{}, err
	}
	return c.Verify(ctx, code)
}

// current returns a client for the stored configuration. It is the same one, with its
// connections, until the configuration changes.
func (u *upstreamService) current(ctx context.Context) (*otp.Client, error) {
	config, err := u.keys.Upstream(ctx)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if same := config.Fingerprint(); u.client == nil || u.config != same {
		client, err := otp.NewClient(config)
		if err != nil {
			return nil, err
		}
		if u.client != nil {
			u.client.Close()
		}
		u.config, u.client = same, client
	}
	return u.client, nil
}

func (u *upstreamService) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.client == nil {
		return nil
	}
	return u.client.Close()
}

// seenEvery is how often a server compares the database with how far it was.
const seenEvery = time.Second

// watchRestored compares the database with the furthest position that was seen of it,
// at once and then at intervals until ctx ends. A database that turns out to be an older
// one was restored: no code is accepted until that was accepted.
func (o *OneTime) watchRestored(ctx context.Context, st *state.State, log *slog.Logger) {
	refusing := false
	check := func() {
		err := st.CheckRestored(ctx)
		switch was := refusing; {
		case ctx.Err() != nil:
		case st.Refusing() && !was:
			refusing = true
			log.Error("no one-time passwords are accepted", postern.LogError, err)
		case err == nil && was:
			refusing = false
			log.Warn("one-time passwords are accepted again")
		}
	}
	check()
	o.watcher.Go(func() { every(ctx, seenEvery, check) })
}
