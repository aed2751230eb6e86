package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

// seenFile holds how long the timeline was when a server last looked. It is
// outside the database: a database that is shorter was restored from a backup,
// and has forgotten which codes were used since.
const seenFile = "log.seen"

// seenEvery is how often a server looks: what it saw last may be that old.
const seenEvery = time.Second

// seenSize returns the length that the timeline had, 0 if nobody has looked.
func seenSize(st *state) (int64, error) {
	b, err := os.ReadFile(st.path(seenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, postern.Errorf(postern.Invalid, "%s does not hold a number", st.path(seenFile)).WithHint("see postern otp restored --help")
	}
	return n, nil
}

// errRestored is why no code is taken from a database that went back in time.
var errRestored error = postern.Errorf(postern.Unavailable, "the database is older than what was seen of it: codes used since then would be good again").
	WithHint("see postern otp restored --help")

// checkRestored fails if the database has gone back in time. It returns the
// timeline's length.
func checkRestored(ctx context.Context, st *state) (int64, error) {
	seen, err := seenSize(st)
	if err != nil {
		return 0, err
	}
	size, err := st.Store.LogSize(ctx)
	if err != nil {
		return 0, err
	}
	if size < seen {
		return size, errRestored
	}
	return size, nil
}

// watchRestored looks every moment, and once more when ctx ends, and takes no
// codes any more once the database has gone back.
func watchRestored(ctx context.Context, st *state, keys *store.OTP, log *slog.Logger) {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for last := int64(0); ; {
		final := ctx.Err() != nil
		size, err := checkRestored(context.WithoutCancel(ctx), st)
		switch {
		case errors.Is(err, errRestored):
			keys.Refuse(err)
			return
		case err == nil && size != last:
			if err := replaceFile(st.path(seenFile), []byte(strconv.FormatInt(size, 10)+"\n"), 0o600); err != nil {
				log.Error("cannot note how long the timeline is", postern.LogError, err)
			}
			last = size
		}
		if final {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func newOTPRestored(a *app) *cobra.Command {
	var trust bool
	cmd := &cobra.Command{
		Use:   "restored",
		Short: "Go on with a database that was restored from a backup",
		Long: `Go on with a database that was restored from a backup. It does not know which
codes were used after the backup was made, and would take them again; so no code
is taken until this command was given, with the server stopped.

It disables every YubiKey and HOTP device whose secret is here and throws away all
recovery codes. Then, for each key, have its holder unplug it, plug it in again and
touch it: postern otp enable ID, and at once postern otp verify - with that code,
which puts the counter where it belongs. Give out new recovery codes.

With --trust nothing is disabled: if you know that no code was used since the
backup, or that nobody can have seen one.`,
		Example: "  postern otp restored",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(st *state, keys *store.OTP) error {
				ctx := cmd.Context()
				switch _, err := checkRestored(ctx, st); {
				case err == nil:
					return postern.Errorf(postern.Conflict, "the database is not older than what was seen of it")
				case !errors.Is(err, errRestored):
					return err
				}
				n := 0
				if !trust {
					var err error
					if n, err = keys.DisableAll(ctx); err != nil {
						return err
					}
				}
				if err := st.Store.Append(ctx, byHand(postern.Event{Kind: postern.EventOTPRestored, Count: int64(n)})); err != nil {
					return err
				}
				if err := os.Remove(st.path(seenFile)); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "disabled %d keys and devices\n", n)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&trust, "trust", false, "disable nothing")
	return cmd
}
