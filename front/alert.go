package front

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Alert says which entries of the timeline are reported, and to whom. What is empty has
// the default that the word's description names.
type Alert struct {
	Name     string         `json:"name"`
	When     string         `json:"when,omitempty"`
	Count    int64          `json:"count,omitempty"`
	Within   caddy.Duration `json:"within,omitempty"`
	Every    caddy.Duration `json:"every,omitempty"`
	Mail     []string       `json:"mail,omitempty"`
	Webhooks []Webhook      `json:"webhooks,omitempty"`
	Commands [][]string     `json:"commands,omitempty"`
}

// Webhook is an HTTP receiver, and the file with the secret that signs what it gets.
type Webhook struct {
	URL    string `json:"url"`
	Secret string `json:"secret"`
}

var alertWords = []word[Alert]{
	{
		Word{
			"when", "`CEL`",
			"Entries that this expression holds for are reported. It may read event, with the fields of the entry's " +
				"JSON (kind, outcome, person, address, host, object, reason, count, time, links, details), hour, " +
				"0 to 23 in the server's time zone, and new_address: whether the person has signed in before, and " +
				"never from this address. A ready-made alert needs none.",
		},
		func(a *Alert, d *caddyfile.Dispenser) error { return a.parseWhen(d) },
	},
	{
		Word{"count", "N DURATION", "Report once so many such entries, by their own counts, came within this time."},
		func(a *Alert, d *caddyfile.Dispenser) error { return a.parseCount(d) },
	},
	{
		Word{
			"every", "DURATION",
			"The least time between two messages, 5m unless it is given. What matches meanwhile is counted in " +
				"the next.",
		},
		func(a *Alert, d *caddyfile.Dispenser) error { return duration(d, &a.Every) },
	},
	{
		Word{"mail", "ADDRESS…", "Send a mail to these addresses. It may be repeated, as webhook and command."},
		func(a *Alert, d *caddyfile.Dispenser) error { return some(d, &a.Mail) },
	},
	{
		Word{
			"webhook", "URL SECRET_FILE",
			"Post JSON to this address, signed with the secret in the file, of at least 16 bytes. What is not " +
				"answered with a status of 2xx is posted again, for three days.",
		},
		func(a *Alert, d *caddyfile.Dispenser) error { return a.parseWebhook(d) },
	},
	{
		Word{
			"command", "PROGRAM [ARGUMENT…]",
			"Run this program, an absolute path, without a shell, with the JSON on its standard input. It is " +
				"ended after 30s, and run again if it fails.",
		},
		func(a *Alert, d *caddyfile.Dispenser) error { return a.parseCommand(d) },
	},
}

func (a *App) parseAlert(d *caddyfile.Dispenser) error {
	var alert Alert
	if err := one(d, &alert.Name); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("alert", alertWords, &alert, d); err != nil {
			return err
		}
	}
	a.Alerts = append(a.Alerts, alert)
	return nil
}

func (a *Alert) parseWhen(d *caddyfile.Dispenser) error {
	if a.When != "" {
		return d.Err("there is one expression: join them with &&")
	}
	if !d.AllArgs(&a.When) || strings.TrimSpace(a.When) == "" {
		return d.Err("an expression is one argument: put it between backquotes")
	}
	return nil
}

func (a *Alert) parseCount(d *caddyfile.Dispenser) error {
	var n, within string
	if !d.AllArgs(&n, &within) {
		return d.ArgErr()
	}
	var err error
	if a.Count, err = strconv.ParseInt(n, 10, 64); err != nil || a.Count < 1 {
		return d.Errf("%q is not a number above 0", n)
	}
	v, err := caddy.ParseDuration(within)
	if err != nil || v <= 0 {
		return d.Errf("%q is no duration, as 30s or 8h", within)
	}
	a.Within = caddy.Duration(v)
	return nil
}

func (a *Alert) parseWebhook(d *caddyfile.Dispenser) error {
	var w Webhook
	if !d.AllArgs(&w.URL, &w.Secret) {
		return d.ArgErr()
	}
	a.Webhooks = append(a.Webhooks, w)
	return nil
}

func (a *Alert) parseCommand(d *caddyfile.Dispenser) error {
	var argv []string
	if err := some(d, &argv); err != nil {
		return err
	}
	a.Commands = append(a.Commands, argv)
	return nil
}
