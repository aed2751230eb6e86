package host

import (
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// TestOneHostGetsSoManyCertificates has a host ask for more than any needs.
func TestOneHostGetsSoManyCertificates(t *testing.T) {
	var l Limit
	now := time.Now()
	for range maxBurst {
		if err := l.Take("hv1", now); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Take("hv1", now); postern.CodeOf(err) != postern.TooMany {
		t.Errorf("one too many: %v", err)
	}
	if err := l.Take("hv2", now); err != nil {
		t.Errorf("another host: %v", err)
	}
	now = now.Add(oneMore)
	if err := l.Take("hv1", now); err != nil {
		t.Errorf("a while later: %v", err)
	}
	if err := l.Take("hv1", now); postern.CodeOf(err) != postern.TooMany {
		t.Errorf("another: %v", err)
	}
	if err := l.Take("hv3", now.Add((maxBurst+1)*oneMore)); err != nil || len(l.full) != 1 {
		t.Errorf("%d hosts are remembered, %v", len(l.full), err)
	}
}
