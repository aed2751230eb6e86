package otp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, tok *SoftToken, c Code) Token {
	t.Helper()
	got, ok := c.Open(tok.Secret.cipher(), tok.Secret.PrivateID)
	if !ok || c.PublicID != tok.PublicID {
		t.Fatalf("the token's code does not open: %s", c)
	}
	return got
}

func touch(t *testing.T, tok *SoftToken, now time.Time) Token {
	t.Helper()
	c, err := tok.Touch(now)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, tok, c)
}

func TestSoftTokenCountsAsAKeyDoes(t *testing.T) {
	now := time.Unix(1700000000, 0)
	tok := NewSoftToken()
	if !strings.HasPrefix(tok.PublicID, "vv") || len(tok.PublicID) != 12 {
		t.Errorf("public ID %q", tok.PublicID)
	}
	first := touch(t, tok, now)
	if first.Counter != 1 || first.Use != 0 {
		t.Errorf("the first code is %d/%d, want 1/0", first.Counter, first.Use)
	}
	second := touch(t, tok, now.Add(10*time.Second))
	if second.Counter != 1 || second.Use != 1 {
		t.Errorf("the second code is %d/%d, want 1/1", second.Counter, second.Use)
	}
	if d := (second.Timestamp - first.Timestamp) & maxTimestamp; d != 80 {
		t.Errorf("ten seconds are %d ticks, want 80", d)
	}
	if err := tok.PowerUp(now); err != nil {
		t.Fatal(err)
	}
	if third := touch(t, tok, now); third.Counter != 2 || third.Use != 0 {
		t.Errorf("after power-up the code is %d/%d, want 2/0", third.Counter, third.Use)
	}
}

func TestSoftTokenSessionUseWraps(t *testing.T) {
	tok := NewSoftToken()
	var last int64 = -1
	for i := range 600 {
		got := touch(t, tok, time.Unix(int64(i), 0))
		if got.Seq() <= last {
			t.Fatalf("code %d (%d/%d) does not follow the one before", i, got.Counter, got.Use)
		}
		last = got.Seq()
	}
}

func TestSoftTokenWearsOut(t *testing.T) {
	tok := NewSoftToken()
	tok.Counter = counterMask - 1
	now := time.Unix(0, 0)
	for range 256 {
		if _, err := tok.Touch(now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tok.Touch(now); !errors.Is(err, ErrTokenWornOut) {
		t.Errorf("past the last code: %v", err)
	}
	if err := tok.PowerUp(now); !errors.Is(err, ErrTokenWornOut) {
		t.Errorf("power-up past the last session: %v", err)
	}
}

func TestSecretDoesNotPrintItself(t *testing.T) {
	tok := NewSoftToken()
	hidden := fmt.Sprintf("%d", tok.Secret.Key[0:2])
	for _, s := range []string{fmt.Sprint(tok.Secret), fmt.Sprintf("%+v", *tok), fmt.Sprintf("%#v", tok.Secret)} {
		if strings.Contains(s, strings.Trim(hidden, "[]")) {
			t.Errorf("the secret shows in %s", s)
		}
	}
}
