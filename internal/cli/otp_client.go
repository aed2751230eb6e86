package cli

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPClient(a *app) *cobra.Command {
	return group("client", "Programs that may ask the validation service",
		newOTPClientAdd(a), newOTPClientList(a),
		newOTPClientStatus(a, "disable", true, "Answer an API client no more"),
		newOTPClientStatus(a, "enable", false, "Answer a disabled API client again"),
	)
}

func newOTPClientAdd(a *app) *cobra.Command {
	var c otp.APIClient
	var out string
	var unsigned bool
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add an API client and print its number and key",
		Long: `Add a program that may ask the validation service at /wsapi/2.0/verify: a
libpam-yubico, a RADIUS server, a website. It gets a number and a secret key of
its own; requests signed with the key are checked, answers are signed with it.
The key is printed once.`,
		Example: `  postern otp client add --label 'radius.example.com'
  postern otp client add --must-sign --out client.txt`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !unsigned {
				c.Secret = make([]byte, 20)
				rand.Read(c.Secret)
			} else if c.MustSign {
				return postern.Errorf(postern.Invalid, "a client without a key cannot sign")
			}
			return a.otpClientAdd(cmd.Context(), &c, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Label, "label", "", "a `NAME` for it")
	f.Int64Var(&c.ID, "id", 0, "its `NUMBER` (default: the next free one)")
	f.BoolVar(&c.MustSign, "must-sign", false, "refuse its requests unless they are signed")
	f.BoolVar(&unsigned, "unsigned", false, "give it no key: nothing is signed, and whoever is in between can forge answers")
	f.StringVarP(&out, "out", "o", "", "write number and key to `FILE`, mode 0600; - is standard output")
	return cmd
}

func (a *app) otpClientAdd(ctx context.Context, c *otp.APIClient, out string) error {
	if len(c.Secret) == 0 && out == "" {
		out = "-" // no secret
	}
	if err := a.secretTarget(out); err != nil {
		return err
	}
	return a.withOTP(ctx, func(_ *state.State, keys *store.OTP) error {
		if err := keys.AddClient(ctx, c); err != nil {
			return err
		}
		text := fmt.Sprintf("id %d\n", c.ID)
		if len(c.Secret) > 0 {
			text += "key " + base64.StdEncoding.EncodeToString(c.Secret) + "\n"
		}
		if err := a.secretOut(out, []byte(text)); err != nil {
			return err
		}
		if out != "-" && out != "" {
			fmt.Fprintf(a.out, "added API client %d\n", c.ID)
		}
		return nil
	})
}

// clientItem is an API client as lists show it.
type clientItem struct {
	ID       int64  `json:"id"`
	Label    string `json:"label,omitempty"`
	Signs    bool   `json:"signs"`
	MustSign bool   `json:"must_sign"`
	Disabled bool   `json:"disabled"`
}

func newOTPClientList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the API clients",
		Long:    "List the programs that may ask the validation service. Keys are not shown.",
		Example: "  postern otp client list --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
				clients, err := keys.Clients(cmd.Context())
				if err != nil {
					return err
				}
				var items []clientItem
				for _, c := range clients {
					items = append(items, clientItem{c.ID, c.Label, len(c.Secret) > 0, c.MustSign, c.Disabled})
				}
				return a.otpClientTable(items, asJSON)
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) otpClientTable(items []clientItem, asJSON bool) error {
	return terminal.List(a.printer(), items, asJSON, "ID STATUS KEY LABEL", func(c clientItem) []string {
		status, key := "active", "required"
		if c.Disabled {
			status = "disabled"
		}
		switch {
		case !c.Signs:
			key = "unsigned"
		case !c.MustSign:
			key = "optional"
		}
		return []string{strconv.FormatInt(c.ID, 10), status, key, c.Label}
	})
}

// upstreamJSON is the upstream validation service, as it is printed.
type upstreamJSON struct {
	ID    int64    `json:"id"`
	URLs  []string `json:"urls"`
	Level string   `json:"level,omitempty"` // the protocol's sl
	Proxy string   `json:"proxy,omitempty"`
}

func newOTPClientStatus(a *app, use string, disabled bool, short string) *cobra.Command {
	return &cobra.Command{
		Use:     use + " NUMBER",
		Short:   short,
		Long:    short + ", from the next request on.",
		Example: "  postern otp client " + use + " 2",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return postern.Errorf(postern.Invalid, "%q is not the number of an API client", args[0])
			}
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
				err := keys.SetClientDisabled(cmd.Context(), id, disabled)
				if err == nil {
					fmt.Fprintf(a.out, "%sd API client %d\n", use, id)
				}
				return err
			})
		},
	}
}

func newOTPOutside(a *app) *cobra.Command {
	return group("outside", "The outside validation service, for keys whose secret is not here",
		newOTPOutsideSet(a), newOTPOutsideShow(a),
		&cobra.Command{
			Use: "remove", Short: "Ask no outside validation service any more",
			Long:    "Ask no outside validation service any more: keys whose secret is there are refused.",
			Example: "  postern otp outside remove",
			Args:    usageArgs(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error { return keys.RemoveOutside(cmd.Context()) })
			},
		})
}

func newOTPOutsideSet(a *app) *cobra.Command {
	var c otp.ClientConfig
	var keyFile string
	cmd := &cobra.Command{
		Use:   "set --id NUMBER --key-file FILE",
		Short: "Set the outside validation service",
		Long: `Set the validation service that checks codes of keys whose secret is not here:
YubiCloud, or with --url any others that speak its protocol. All of several
servers are asked at once. Answers count only if they are signed with the API
key. No proxy is used unless one is given here.`,
		Example: `  postern otp outside set --id 12345 --key-file yubicloud.key
  postern otp outside set --id 1 --key-file - --url https://otp1.example.com/wsapi/2.0/verify --url https://otp2.example.com/wsapi/2.0/verify`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := a.apiKey(keyFile)
			if err != nil {
				return err
			}
			c.Key = key
			if len(c.URLs) == 0 {
				c.URLs = []string{otp.YubiCloud}
			}
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error { return keys.SetOutside(cmd.Context(), c) })
		},
	}
	f := cmd.Flags()
	f.Int64Var(&c.ID, "id", 0, "our API client `NUMBER` there")
	f.StringVar(&keyFile, "key-file", "", "`FILE` with our API key there, in base64; - is standard input")
	f.StringArrayVar(&c.URLs, "url", nil, "`URL` of a server; can be repeated (default "+otp.YubiCloud+")")
	f.StringVar(&c.Level, "sl", "", "how many of its peers a server must have heard from: `PERCENT`, fast or secure")
	f.StringVar(&c.Proxy, "proxy", "", "`URL` of an HTTP proxy to go through")
	_ = cmd.MarkFlagRequired("id")
	_ = cmd.MarkFlagRequired("key-file")
	return cmd
}

// apiKey reads a key in base64.
func (a *app) apiKey(path string) ([]byte, error) {
	text, err := a.passwordFile(path)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) == 0 {
		return nil, postern.Errorf(postern.Invalid, "%s does not hold an API key in base64", path)
	}
	return key, nil
}

func newOTPOutsideShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show which outside validation service is asked",
		Long:    "Show which outside validation service is asked. The key is not shown.",
		Example: "  postern otp outside show",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
				c, err := keys.Outside(cmd.Context())
				if err != nil {
					return err
				}
				return a.printer().Fields(upstreamJSON{c.ID, c.URLs, c.Level, c.Proxy}, asJSON,
					terminal.Field{"client", strconv.FormatInt(c.ID, 10)},
					terminal.Field{"urls", strings.Join(c.URLs, " ")},
					terminal.Field{"level", c.Level},
					terminal.Field{"proxy", c.Proxy})
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
