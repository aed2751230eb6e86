package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/directory"
	"github.com/postern-project/postern/internal/people"
)

// directoryOf returns the directory that a configuration's options name, or nil.
func directoryOf(o *front.Directory) (*directory.Config, error) {
	if o == nil {
		return nil, nil
	}
	c := directory.Config{
		URL: o.URL, Name: o.Name, CA: o.CA, BindDN: o.BindDN, PasswordFile: o.PasswordFile, Base: o.Base,
		Users: o.Users, Groups: o.Groups, NameAttribute: o.NameAttribute, Suffix: o.GroupSuffix,
		Reserved: []string{people.AdminGroup, agentGroup, postern.SignedUp},
		Refresh:  time.Duration(o.Refresh), Keep: time.Duration(o.Keep),
	}
	return &c, c.Validate()
}

// followDirectory keeps people like a directory, until ctx ends; nil ends that they are
// taken from any.
func (s *server) followDirectory(ctx context.Context, c *directory.Config) {
	store := s.state.Store.Directory()
	for {
		err := store.Use(ctx, c)
		if err == nil {
			break
		}
		s.log.ErrorContext(ctx, "the directory of people is not taken yet", slog.Any(postern.LogError, err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
	if c != nil {
		directory.Syncer{Config: *c, Store: store, Log: s.log}.Run(ctx)
	}
}
