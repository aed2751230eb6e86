package otp_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// oneKey keeps one YubiKey and one API client in memory. What a server keeps
// has to be durable before Accept returns: after a restart this one would take
// each code once more.
type oneKey struct {
	mu     sync.Mutex
	key    otp.Key
	client otp.APIClient
}

func (k *oneKey) Key(_ context.Context, publicID string) (*otp.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if publicID != k.key.PublicID {
		return nil, postern.Errorf(postern.NotFound, "no such key")
	}
	key := k.key
	return &key, nil
}

func (k *oneKey) Accept(_ context.Context, u otp.Use) (otp.Verdict, otp.Last, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.key.Last
	switch {
	case u.PublicID != k.key.PublicID || !k.key.Active() || u.Person != "" && u.Person != k.key.Person:
		return otp.Refused, before, nil
	case u.Seq <= before.Seq:
		return otp.Replayed, before, nil
	}
	k.key.Last = u.Last
	return otp.Accepted, before, nil
}

func (k *oneKey) Client(_ context.Context, id int64) (*otp.APIClient, error) {
	if id != k.client.ID {
		return nil, postern.Errorf(postern.NotFound, "no such client")
	}
	return &k.client, nil
}

// Append takes the service's refusals, which belong on a timeline.
func (k *oneKey) Append(context.Context, ...postern.Event) error { return nil }

// A client accepts an answer only if it is signed, and about this code. A code
// is good once.
func ExampleClient() {
	yubikey := otp.NewSoftToken()
	keys := &oneKey{
		key: otp.Key{
			PublicID: yubikey.PublicID, Secret: &yubikey.Secret, Status: postern.CredentialActive,
			Last: otp.Never,
		},
		client: otp.APIClient{ID: 1, Secret: []byte("the client's secret")},
	}
	service, err := otp.NewService(otp.Config{}, keys, keys)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer service.Close()
	server := httptest.NewServer(service)
	defer server.Close()

	client, err := otp.NewClient(otp.ClientConfig{
		ID: 1, Key: keys.client.Secret,
		URLs: []string{server.URL + "/wsapi/2.0/verify"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	code, err := yubikey.Touch(time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		answer, err := client.Verify(context.Background(), code)
		fmt.Println(answer.Status, err)
	}
	// Output:
	// OK <nil>
	// REPLAYED_OTP <nil>
}
