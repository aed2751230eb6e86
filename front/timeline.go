package front

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Timeline says who may read the timeline at the portal's /timeline/, and which witnesses
// vouch for it.
type Timeline struct {
	Tree    []string       `json:"tree,omitempty"`    // groups who read checkpoints and hashes; [Anyone]: all
	Entries []string       `json:"entries,omitempty"` // groups who read entries, too
	Policy  string         `json:"policy,omitempty"`  // a file with the witnesses; "": there are none
	Every   caddy.Duration `json:"every,omitempty"`   // between two checkpoints for the witnesses; 0: the default
}

// Anyone stands for all clients, with a certificate or without one.
const Anyone = "anyone"

var timelineWords = []word[Timeline]{
	{
		Word{
			"tree", "GROUP…|anyone",
			"Who may read the checkpoint and the hashes of the tree at the portal's /timeline/, members of these " +
				"groups or " +
				"anyone. Without it they are not served.",
		},
		func(t *Timeline, d *caddyfile.Dispenser) error { return some(d, &t.Tree) },
	},
	{
		Word{
			"entries", "GROUP…",
			"Members of these groups may read the entries as well, which hold personal data. Without it they are " +
				"not served.",
		},
		func(t *Timeline, d *caddyfile.Dispenser) error { return t.parseEntries(d) },
	},
	{
		Word{
			"policy", "FILE",
			"The witnesses, with their URLs and keys, and how many of them must cosign a checkpoint: a file of " +
				"C2SP's tlog-policy.",
		},
		func(t *Timeline, d *caddyfile.Dispenser) error { return one(d, &t.Policy) },
	},
	{
		Word{
			"every", "DURATION",
			"The least time between two checkpoints that the witnesses are sent, 10s unless it is given.",
		},
		func(t *Timeline, d *caddyfile.Dispenser) error { return duration(d, &t.Every) },
	},
}

func (a *App) parseTimeline(d *caddyfile.Dispenser) error {
	if a.Timeline != nil {
		return d.Err("there is one timeline")
	}
	a.Timeline = new(Timeline)
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("timeline", timelineWords, a.Timeline, d); err != nil {
			return err
		}
	}
	return nil
}

func (t *Timeline) parseEntries(d *caddyfile.Dispenser) error {
	if err := some(d, &t.Entries); err != nil {
		return err
	}
	for _, group := range t.Entries {
		if group == Anyone {
			return d.Err("entries hold personal data: name the groups who may read them")
		}
	}
	return nil
}
