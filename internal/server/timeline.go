package server

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/witness"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

// timelinePath is where the timeline is served on the portal's site.
const timelinePath = "/timeline/"

// serveTimeline adds to the services what a configuration says of the timeline.
func (h *services) serveTimeline(s *configured, o *front.Timeline) error {
	if o == nil {
		return nil
	}
	log := h.state.Store.Timeline()
	logger := h.log.With(slog.String(postern.LogKind, "timeline"))
	if o.Policy != "" {
		policy, err := readPolicy(o.Policy)
		if err != nil {
			return err
		}
		s.run = append(s.run, (&witness.Submitter{
			Log: log, Store: log, Policy: policy, Every: time.Duration(o.Every), Logger: logger,
			Verifier: func() (note.Verifier, error) { return timeline.ParseKeys(log.LogVerifier()) },
			Record:   (&checks{server: h.server, recorded: map[[2]string]string{}}).recordWitness,
		}).Run)
	}
	s.list = append(s.list, front.Service{Prefix: timelinePath, Handler: whileKnown(witness.Tiles(timelinePath,
		witness.TilesConfig{
			Log: log, Cosigned: o.Policy != "", Logger: logger, Tree: allowed(o.Tree), Entries: allowed(o.Entries),
		}))})
	return nil
}

// allowed returns what reports whether a request is one of a member of these groups.
func allowed(groups []string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		if slices.Contains(groups, front.Anyone) {
			return true
		}
		who, _, ok := front.Identify(r)
		return ok && slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(who.Groups, g) })
	}
}

// readPolicy reads the witnesses of the timeline. Each is asked at its URL.
func readPolicy(file string) (*timeline.Policy, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "the policy of the timeline: %w", err)
	}
	p, err := timeline.ParsePolicy(text)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "%s: %w", file, err)
	}
	for _, w := range p.Witnesses {
		if w.URL == "" {
			return nil, postern.Errorf(postern.Invalid, "%s: the witness %s has no URL", file, w.Name).
				WithHint("witness NAME KEY https://…")
		}
	}
	return p, nil
}

// recordWitness records on the timeline what is wrong with a witness, "" if nothing is.
func (s checks) recordWitness(ctx context.Context, name, wrong string) {
	s.record(ctx, postern.EventCheckWitness, name, wrong)
}
