package client

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

func TestNoCodeIsMadeTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token.json")
	made, err := NewToken(path, "cccccccccccb")
	if err != nil || made.PublicID != "cccccccccccb" {
		t.Fatal(made, err)
	}
	var mu sync.Mutex
	seen := make(map[string]bool)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			codes, err := Touch(path, 5)
			if err != nil || len(codes) != 5 {
				t.Error(codes, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, c := range codes {
				seen[c] = true
			}
		})
	}
	all.Wait()
	if len(seen) != 40 {
		t.Errorf("%d codes, not 40", len(seen))
	}
	before, err := ReadToken(path)
	if err != nil || before.Secret != made.Secret {
		t.Error("another secret", err)
	}
	if err := PlugIn(path); err != nil {
		t.Fatal(err)
	}
	if after, err := ReadToken(path); err != nil || after.Counter != before.Counter+1 {
		t.Error("not plugged in", err)
	}
}

func TestTokenFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token.json")
	if _, err := Touch(path, 1); postern.CodeOf(err) != postern.NotFound || postern.HintOf(err) == "" {
		t.Error("no file:", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Error("something is left where no token is:", left)
	}
	if _, err := NewToken(path, "not modhex"); postern.CodeOf(err) != postern.Invalid {
		t.Error("not a public ID:", err)
	}
	if _, err := NewToken(path, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := NewToken(path, ""); postern.CodeOf(err) != postern.Conflict {
		t.Error("a second token in one file:", err)
	}
	for _, n := range []int{0, -1, 1001} {
		if _, err := Touch(path, n); postern.CodeOf(err) != postern.Invalid {
			t.Error(n, "codes:", err)
		}
	}
	other := filepath.Join(dir, "other")
	for _, text := range []string{"", "{}", `{"public_id":"cccccccccccb","private_id":"00","key":"00"}`} {
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Touch(other, 1); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q is a token: %v", text, err)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Touch(path, 1); postern.CodeOf(err) != postern.Denied {
		t.Error("others can read it:", err)
	}
}

func TestWhatATokenCannotDoLeavesItAsItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token.json")
	if _, err := NewToken(path, ""); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	worn := errors.New("worn out")
	err := changeToken(path, func(k *otp.SoftToken) error { k.Counter = 9; return worn })
	if !errors.Is(err, worn) || postern.CodeOf(err) != postern.Conflict {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the file was changed")
	}
}
