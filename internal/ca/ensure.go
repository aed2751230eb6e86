package ca

import (
	"context"

	"github.com/postern-project/postern"
)

// Ensure makes the authority if the store holds none, and reports whether it did;
// else it opens the one that is there.
func Ensure(ctx context.Context, cfg Config, store Store) (a *Authority, made bool, err error) {
	a, err = Init(ctx, cfg, store)
	if err == nil || postern.CodeOf(err) != postern.Conflict {
		return a, err == nil, err
	}
	a, err = Open(ctx, Config{Keys: cfg.Keys}, store)
	return a, false, err
}
