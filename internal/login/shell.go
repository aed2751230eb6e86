package login

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/shell"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/otp"
)

// Shell is a ForceCommand that asks for a code and then becomes what sshd would
// have run.
type Shell struct {
	Config   string        // the file of settings, as /etc/yubikey_shell
	Accepted []string      // channels that may be open beside it, as the audit names them
	Timeout  time.Duration // that typing the code may take
	Stdin    *os.File
	Stdout   io.Writer
	Stderr   io.Writer
}

// Become returns only if the code was refused, or if there is something open beside
// the shell that no code guards. The caller ends the connection then.
func (s Shell) Become(ctx context.Context) error {
	account, login, err := accountOf(os.Getuid())
	if err != nil {
		return err
	}
	cfg, err := hostconf.ReadShellConfig(s.Config)
	if err != nil {
		return err
	}
	sh := shell.Shell{
		User: account, Login: login, Environ: os.Environ(), TrustedKeys: cfg.TrustedKeys,
		Accepted: s.Accepted, Debug: cfg.Debug, Timeout: s.Timeout, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
		Log: shell.LogAuth,
	}
	connection := os.Getenv("SSH_CONNECTION")
	for _, f := range audit.Beside(ctx, os.Getpid(), account, connection) {
		sh.Open = append(sh.Open, shell.Channel{ID: f.ID, Title: f.Title, Fix: f.Fix})
	}
	if sh.Validate, err = codeValidator(cfg, account, connection); err != nil {
		return err
	}
	sh.AnyKey = cfg.APIID == 0 // the daemon knows whose key it is
	if err := sh.Run(ctx); err != nil {
		return err
	}
	path, argv, environ := sh.Command()
	return fmt.Errorf("start %s: %w", path, syscall.Exec(path, argv, environ))
}

// codeValidator returns what decides about a code: this host's daemon, unless the
// settings name an API client of a validation service.
func codeValidator(cfg hostconf.ShellConfig, account, connection string) (func(context.Context, string) error, error) {
	switch {
	case cfg.APIID == 0:
		address, _, _ := strings.Cut(connection, " ")
		return func(ctx context.Context, code string) error {
			return askShellDaemon(ctx, socket.Question{Ask: socket.AskCode, User: account, Host: address, Code: code})
		}, nil
	case cfg.APIKey == "":
		return func(ctx context.Context, code string) error {
			return shell.ValidateUnsigned(ctx, cfg.URL, cfg.APIID, code)
		}, nil
	}
	key, err := base64.StdEncoding.DecodeString(cfg.APIKey)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "YUBICO_API_KEY is not base64")
	}
	c := otp.ClientConfig{ID: cfg.APIID, Key: key}
	if cfg.URL != "" {
		c.URLs = []string{cfg.URL}
	}
	client, err := otp.NewClient(c)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, typed string) error { return askService(ctx, client, typed) }, nil
}

func askShellDaemon(ctx context.Context, q socket.Question) error {
	v, err := socket.AskDaemon(ctx, sshd.ShellSocket, q)
	if err == nil && v != socket.Yes {
		err = postern.Errorf(postern.Denied, "the code was not accepted")
	}
	return err
}

func askService(ctx context.Context, client *otp.Client, typed string) error {
	code, ok := otp.ParseCode(typed)
	if !ok {
		return postern.Errorf(postern.Denied, "that is no code of a YubiKey")
	}
	answer, err := client.Verify(ctx, code)
	if err == nil && answer.Status != otp.StatusOK {
		err = postern.Errorf(postern.Denied, "the validation service says %s", answer.Status)
	}
	return err
}

// accountOf returns a user's name and login shell, as the databases of
// nsswitch.conf(5) have them.
func accountOf(uid int) (name, login string, err error) {
	out, err := exec.Command("/usr/bin/getent", "passwd", strconv.Itoa(uid)).Output()
	if err != nil {
		return "", "", fmt.Errorf("user %d in passwd: %w", uid, err)
	}
	f := strings.Split(strings.TrimSpace(string(out)), ":")
	if len(f) != 7 || f[2] != strconv.Itoa(uid) {
		return "", "", postern.Errorf(postern.NotFound, "user %d is not in passwd", uid)
	}
	return f[0], f[6], nil
}
