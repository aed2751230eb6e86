package cli

import (
	"context"

	"github.com/postern-project/postern/internal/state"
)

// stateDir returns the state directory that --state and the environment name.
func (a *app) stateDir() (string, error) { return state.Dir(a.state) }

// open opens the state directory, which must have been made by init or run.
func (a *app) open(ctx context.Context) (*state.State, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	return state.Open(ctx, dir)
}

// create makes what is missing of the state directory, and opens it.
func (a *app) create(ctx context.Context) (*state.State, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	return state.Create(ctx, dir)
}
