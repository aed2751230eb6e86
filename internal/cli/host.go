//go:build !noserver

package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newHost(a *app) *cobra.Command {
	return group("host", "Hosts that have joined, or may",
		newHostAdd(a), newHostSet(a), newHostList(a), newHostShow(a),
		newHostStatus(a, "suspend", "suspended", postern.HostSuspended,
			"Refuse a host everywhere until it is resumed"),
		newHostStatus(a, "resume", "resumed", postern.HostJoined, "End a host's suspension"),
		newHostStatus(a, "remove", "removed", postern.HostRemoved, "Remove a host, and revoke its certificates"),
		newHostRescueCodes(a),
	)
}

// withHosts opens the hosts.
func (a *app) withHosts(ctx context.Context, do func(server.HostDirectory) error) error {
	return a.withPeople(ctx, func(d people.Directory) error { return do(server.NewHostDirectory(d)) })
}

func newHostAdd(a *app) *cobra.Command {
	var o server.HostInvite
	var count int
	cmd := &cobra.Command{Use: "add NAME", Short: "Add a host, and print the command that it joins with"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(a.withHosts, func(ctx context.Context, d server.HostDirectory, args []string) (err error) {
		if o.Names, err = server.HostNames(args[0], count); err != nil {
			return err
		}
		list, err := d.Invite(ctx, o)
		for _, i := range list {
			if *asJSON {
				err = terminal.JSON(a.out, i)
			} else {
				_, err = fmt.Fprintln(a.out, i.Command())
			}
		}
		return err
	})
	f := cmd.Flags()
	f.StringSliceVar(&o.Like.Names, "name", nil, "a further `NAME` or address by which clients reach the host")
	f.StringSliceVar(&o.Like.Groups, "group", nil, "a `GROUP` that the host is in; can be repeated")
	f.StringToStringVar(&o.Like.Labels, "label", nil, "a label, `NAME=VALUE`; can be repeated")
	f.IntVar(&count, "count", 0, "add `N` hosts: the # in NAME becomes 1 to N")
	f.Var((*terminal.Duration)(&o.Validity), "validity", "how long it may take, a `DURATION` (default 24h)")
	f.BoolVar(&o.Again, "again", false, "invite a host that there is: it was installed anew")
	f.StringVar(&o.Server, "server", "", "the `URL` by which the host reaches this server (default: the portal's)")
	return cmd
}

func newHostSet(a *app) *cobra.Command {
	var c server.HostChange
	cmd := plain("set NAME", "Change a host's names, groups or labels",
		func(ctx context.Context, args []string) error {
			if c.Empty() {
				return postern.Errorf(postern.Invalid, "nothing is to be changed").
					WithHint("give --add-name, --add-group or --label, or --drop-name, --drop-group or --drop-label")
			}
			return a.withHosts(ctx, func(d server.HostDirectory) error {
				return a.done(d.Change(ctx, args[0], c), "changed %s\n", args[0])
			})
		})
	f := cmd.Flags()
	f.StringSliceVar(&c.AddNames, "add-name", nil, "a further `NAME` or address by which clients reach the host")
	f.StringSliceVar(&c.DropNames, "drop-name", nil, "a `NAME` that the host loses")
	f.StringSliceVar(&c.AddGroups, "add-group", nil, "a `GROUP` that the host joins; can be repeated")
	f.StringSliceVar(&c.DropGroups, "drop-group", nil, "a `GROUP` that the host leaves; can be repeated")
	f.StringToStringVar(&c.SetLabels, "label", nil, "a label, `NAME=VALUE`; can be repeated")
	f.StringSliceVar(&c.DropLabels, "drop-label", nil, "the `NAME` of a label that the host loses")
	return cmd
}

func newHostList(a *app) *cobra.Command {
	return listCommand(a, "list", "List the hosts", a.withState, "NAME STATUS SERVES HEARD VERSION GROUPS PROBLEMS",
		func(ctx context.Context, st *state.State, _ []string) ([]host.Info, error) {
			return server.Hosts{DB: st.Store, Version: system.Version()}.List(ctx)
		}, func(h host.Info) []string {
			return []string{
				h.Name, string(h.Status), strings.Join(h.Serves, ","), terminal.Time(h.Heard), h.Version,
				strings.Join(h.Groups, ","), strings.Join(slices.Concat(h.Warnings, h.Problems), "; "),
			}
		})
}

func newHostShow(a *app) *cobra.Command {
	return showCommand(a, "show NAME", "Show a host", a.withState,
		func(ctx context.Context, st *state.State, args []string) (host.Info, error) {
			return server.Hosts{DB: st.Store, Version: system.Version()}.Show(ctx, args[0])
		}, func(h host.Info) []terminal.Field {
			fields := []terminal.Field{
				{"name", h.Name},
				{"further names", strings.Join(h.Names, ", ")},
				{"status", string(h.Status)},
				{"groups", strings.Join(h.Groups, ", ")},
				{"added", terminal.Time(h.Created)},
				{"joined", terminal.Time(h.Joined)},
				{"heard", terminal.Time(h.Heard)},
				{"version", h.Version},
				{"serves", strings.Join(h.Serves, ", ")},
			}
			for _, key := range slices.Sorted(maps.Keys(h.Labels)) {
				fields = append(fields, terminal.Field{"label", key + "=" + h.Labels[key]})
			}
			for _, k := range h.Keys {
				fields = append(fields, terminal.Field{"SSH key", k})
			}
			for _, p := range slices.Concat(h.Warnings, h.Problems) {
				fields = append(fields, terminal.Field{"problem", p})
			}
			return fields
		})
}

// newHostStatus makes one of the commands that set a host's status.
func newHostStatus(a *app, use, done string, status postern.HostStatus, short string) *cobra.Command {
	return command(use+" NAME", short, a.withHosts,
		func(ctx context.Context, d server.HostDirectory, args []string) error {
			changed, err := d.SetStatus(ctx, args[0], status)
			if !changed {
				return a.done(err, "%s is already so: nothing has changed\n", args[0])
			}
			return a.done(err, "%s %s\n", done, args[0])
		})
}

func newHostRescueCodes(a *app) *cobra.Command {
	var count int
	cmd := command("rescue-codes NAME", "Make codes with which people log in while no server answers", a.withHosts,
		func(ctx context.Context, d server.HostDirectory, args []string) error {
			codes, err := d.RescueCodes(ctx, args[0], count)
			if err != nil {
				return err
			}
			for _, c := range codes {
				fmt.Fprintln(a.out, c)
			}
			return nil
		})
	cmd.Flags().IntVar(&count, "count", 5, "make `N` codes")
	return cmd
}

func newWho(a *app) *cobra.Command {
	return listCommand(a, "who", "Print who is signed in to hosts now", a.withState,
		"SINCE HOST PERSON KNOWN ACCOUNT SERVICE ADDRESS WITH LATE",
		func(ctx context.Context, st *state.State, _ []string) ([]server.Session, error) {
			return server.OpenSessions(ctx, st.Store)
		}, func(s server.Session) []string {
			return []string{
				terminal.Time(s.Since), s.Host, s.Person, string(s.Known), s.Account, s.Service, s.Address,
				strings.Join(s.With, ","), map[bool]string{true: "late"}[s.Late],
			}
		})
}
