package store

import (
	"context"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
)

var _ host.Store = Hosts{}

// Hosts keeps hosts and what admits them: it is the [host.Store].
type Hosts struct{ *DB }

// Hosts returns the hosts in the database.
func (db *DB) Hosts() Hosts { return Hosts{db} }

const hostColumns = `name, names, labels, group_names, status, created, joined, version, serves, ssh_keys, krl,
	problems, heard`

func scanHost(row scanner) (postern.Host, error) {
	var h postern.Host
	var names, labels, groups, serves, keys, problems string
	var created, joined, heard int64
	err := row.Scan(&h.Name, &names, &labels, &groups, &h.Status, &created, &joined, &h.Version, &serves, &keys,
		&h.KRL, &problems, &heard)
	h.Names, h.Groups, h.Serves, h.Keys = lines(names), lines(groups), lines(serves), lines(keys)
	h.Problems = lines(problems)
	for _, l := range lines(labels) {
		key, value, _ := strings.Cut(l, "=")
		if h.Labels == nil {
			h.Labels = map[string]string{}
		}
		h.Labels[key] = value
	}
	h.Created, h.Joined, h.Heard = fromMicros(created), fromMicros(joined), fromMicros(heard)
	return h, err
}

// lines returns the items of a list that is kept as one a line.
func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func joinLines(list []string) string { return strings.Join(list, "\n") }

func joinLabels(labels map[string]string) string {
	var list []string
	for key, value := range labels {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return joinLines(list)
}

// Host implements [host.Store].
func (s Hosts) Host(ctx context.Context, name string) (postern.Host, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (postern.Host, error) { return tx.Host(ctx, name) })
}

// Host returns the host of that name, whatever its status, or [postern.NotFound].
func (tx *Tx) Host(ctx context.Context, name string) (postern.Host, error) {
	h, err := scanHost(tx.QueryRow(ctx, `SELECT `+hostColumns+` FROM hosts WHERE name = $1`, name))
	return h, notFound(err, "there is no host %q", name)
}

// Hosts implements [host.Store].
func (s Hosts) Hosts(ctx context.Context) ([]postern.Host, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]postern.Host, error) { return tx.hosts(ctx) })
}

func (tx *Tx) hosts(ctx context.Context) (list []postern.Host, err error) {
	rows, err := tx.Query(ctx, `SELECT `+hostColumns+` FROM hosts WHERE status <> 'removed'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		h, err := scanHost(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	// Databases order text by different rules; Postern by bytes.
	slices.SortFunc(list, func(a, b postern.Host) int { return strings.Compare(a.Name, b.Name) })
	return list, rows.Err()
}

// KRLVersion returns the version of the SSH revocation list.
func (s Hosts) KRLVersion(ctx context.Context) (int64, error) {
	return s.readNumber(ctx, `SELECT value FROM counters WHERE name = 'ssh-revision'`)
}

// AddHosts implements [host.Store].
func (s Hosts) AddHosts(
	ctx context.Context, by postern.Actor, list []host.Invitation, again bool, event postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		for _, i := range list {
			e := event
			e.Kind = postern.EventHostAdded
			if _, err := tx.presentHost(ctx, i.Host.Name); err == nil {
				e.Reason = "invited again"
			}
			if err := tx.addHost(ctx, i, again); err != nil {
				return err
			}
			if err := tx.hostEvent(ctx, i.Host.Name, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// addHost adds a host, or invites one again, with its token in the place of an earlier one.
func (tx *Tx) addHost(ctx context.Context, i host.Invitation, again bool) error {
	old, err := tx.Host(ctx, i.Host.Name)
	switch {
	case postern.CodeOf(err) == postern.NotFound || err == nil && old.Status == postern.HostRemoved:
		err = tx.putHost(ctx, i.Host)
	case err != nil:
	case old.Status == postern.HostSuspended:
		err = postern.Errorf(postern.Denied, "the host %s is suspended", old.Name).WithHint("resume the host first")
	case !again:
		err = postern.Errorf(postern.Conflict, "there is a host %s already", old.Name).
			WithHint("invite it again, if it was installed anew")
	}
	if err != nil {
		return err
	}
	if err := tx.dropTokens(ctx, i.Host.Name); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO host_tokens (hash, host, expires, used, public_key)
		VALUES ($1, $2, $3, 0, '')`, i.Hash, i.Host.Name, micros(i.Expires))
	return err
}

// putHost adds a host that there is not, or that was removed.
func (tx *Tx) putHost(ctx context.Context, h postern.Host) error {
	if err := h.Validate(); err != nil {
		return err
	}
	slices.Sort(h.Groups)
	_, err := tx.Exec(ctx, `INSERT INTO hosts (`+hostColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, 0, '', '', '', 0, '', 0)
		ON CONFLICT (name) DO UPDATE SET names = excluded.names, labels = excluded.labels,
			group_names = excluded.group_names, status = excluded.status, created = excluded.created, joined = 0,
			version = '', serves = '', ssh_keys = '', krl = 0, problems = '', heard = 0`,
		h.Name, joinLines(h.Names), joinLabels(h.Labels), joinLines(slices.Compact(h.Groups)),
		string(postern.HostInvited), micros(tx.db.Now()))
	return err
}

func (tx *Tx) dropTokens(ctx context.Context, host string) error {
	_, err := tx.Exec(ctx, `DELETE FROM host_tokens WHERE host = $1`, host)
	return err
}

// hostEvent appends an event about a host.
func (tx *Tx) hostEvent(ctx context.Context, name string, e postern.Event) error {
	e.Object = name
	return tx.Append(ctx, e)
}

// ChangeHost implements [host.Store].
func (s Hosts) ChangeHost(
	ctx context.Context, by postern.Actor, name string, change func(*postern.Host) error, event postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		h, err := tx.presentHost(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&h); err != nil {
			return err
		}
		if err := h.Validate(); err != nil {
			return err
		}
		slices.Sort(h.Groups)
		if _, err := tx.Exec(ctx, `UPDATE hosts SET names = $1, labels = $2, group_names = $3 WHERE name = $4`,
			joinLines(h.Names), joinLabels(h.Labels), joinLines(slices.Compact(h.Groups)), name); err != nil {
			return err
		}
		event.Kind = postern.EventHostChanged
		return tx.hostEvent(ctx, name, event)
	})
}

// presentHost returns a host that was not removed.
func (tx *Tx) presentHost(ctx context.Context, name string) (postern.Host, error) {
	h, err := tx.Host(ctx, name)
	if err == nil && h.Status == postern.HostRemoved {
		err = postern.Errorf(postern.Conflict, "the host %s was removed", name).WithHint("add it again")
	}
	return h, err
}

// SetHostStatus implements [host.Store].
func (s Hosts) SetHostStatus(
	ctx context.Context, by postern.Actor, name string, status postern.HostStatus, event postern.Event,
) (changed bool, err error) {
	err = s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		h, err := tx.presentHost(ctx, name)
		if err != nil {
			return err
		}
		e := event
		switch status {
		case postern.HostSuspended:
			e.Kind = postern.EventHostSuspended
		case postern.HostRemoved:
			e.Kind = postern.EventHostRemoved
			if err := tx.stripHost(ctx, name); err != nil {
				return err
			}
		default:
			e.Kind, status = postern.EventHostResumed, postern.HostJoined
			if h.Joined.IsZero() {
				status = postern.HostInvited
			}
		}
		if changed = h.Status != status; !changed {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE hosts SET status = $1 WHERE name = $2`, string(status), name); err != nil {
			return err
		}
		if err := tx.hostEvent(ctx, name, e); err != nil {
			return err
		}
		return tx.Touch(ctx)
	})
	return changed, err
}
