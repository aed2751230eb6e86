package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/system"
)

// host runs programs of the host that is audited: sshd, and what asks NSS.
type host struct {
	hostconf.Files
	box  *system.Sandbox // nil: they run as they are
	sshd []string        // the command, with the arguments that it always takes
	// asks says that getent asks this host's NSS; otherwise its files are read.
	asks bool
	// unanswered is why getent is not asked any more, "" while it answers.
	unanswered string
	patience   time.Duration       // for an answer of sshd or NSS
	copy       hostconf.ConfigCopy // what sshd reads in place of the host's files
}

// thisHost runs the programs of this host.
func thisHost(sshd []string) *host {
	_, err := exec.LookPath("getent")
	return &host{sshd: sshd, asks: err == nil}
}

// hostBelow returns what answers for the files below a root: the sshd that is there,
// else this host's, which gets a copy of the configuration, of passwd and of group.
func hostBelow(ctx context.Context, files hostconf.Files, config string, sshd []string) (*host, error) {
	h := &host{Files: files, sshd: []string{hostconf.Program, "-f", config}}
	if st, err := h.Stat(hostconf.Program); err == nil && st.Mode().IsRegular() {
		if h.box, err = system.NewSandbox(h.Root); err != nil {
			return nil, h.cannotRun(err)
		}
		if _, _, err = h.run(ctx, hostconf.Program, "-V"); started(err) {
			_, err = h.Stat("/usr/bin/getent")
			h.asks = err == nil
			return h, nil
		}
		h.close()
	}
	if _, err := exec.LookPath(sshd[0]); err != nil {
		return nil, h.cannotRun(fmt.Errorf("there is none that runs, and this host has no %s", sshd[0]))
	}
	h.sshd = sshd
	return h, h.useCopy(config)
}

// started reports whether a program ran at all: not if it is for another machine,
// or its libraries are missing (127, as ld.so ends).
func started(err error) bool {
	var exit *exec.ExitError
	return err == nil || errors.As(err, &exit) && exit.ExitCode() != 127 && exit.ExitCode() > 0
}

// cannotRun says that nothing can be said of the files below the root.
func (h *host) cannotRun(err error) error {
	return postern.Errorf(postern.Unavailable, "sshd cannot be asked about the files below %s: %w", h.Root, err).
		WithHint("run it as root of a host that has OpenSSH's server, not in a container")
}

// copied is where this host's sshd finds what it reads of another host's.
const copied = "/run/postern-audit"

// useCopy has this host's sshd read copies.
func (h *host) useCopy(config string) error {
	var err error
	if h.box, err = system.NewSandbox("/"); err != nil {
		return h.cannotRun(err)
	}
	if h.copy, err = h.Copy(config, copied); err != nil {
		return hostconf.ConfigError(err)
	}
	h.sshd = append(slices.Clone(h.sshd), "-f", h.copy.Main)
	files := maps.Clone(h.copy.Files)
	passwd, _ := h.Read("/etc/passwd")
	group, _ := h.Read("/etc/group")
	files["/etc/passwd"], files["/etc/group"] = withSSHD(passwd), group
	for name, content := range map[string]string{
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\n",
		"/run/nscd/socket":   "",
	} {
		if _, err := os.Lstat(name); err == nil { // this host's, which would answer
			files[name] = []byte(content)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := h.box.Write(name, files[name]); err != nil {
			return h.cannotRun(err)
		}
	}
	return nil
}

// withSSHD adds the account without which sshd does not start.
func withSSHD(passwd []byte) []byte {
	if strings.HasPrefix(string(passwd), "sshd:") || strings.Contains(string(passwd), "\nsshd:") {
		return passwd
	}
	return fmt.Appendf(slices.Clone(passwd), "\nsshd:x:65533:65533::/:/usr/sbin/nologin\n")
}

func (h *host) close() {
	if h.box != nil {
		h.box.Close()
	}
}

// errNoAnswer is the error of a program that was ended, since it took too long.
var errNoAnswer = errors.New("it does not answer")

// run runs a program for as long as the host's patience lasts.
func (h *host) run(ctx context.Context, argv ...string) (stdout, stderr string, err error) {
	patience := cmp.Or(h.patience, 20*time.Second)
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if h.box != nil {
		var out, complaint []byte
		out, complaint, err = h.box.Output(limited, argv...)
		stdout, stderr = string(out), string(complaint)
	} else {
		var out, complaint strings.Builder
		cmd := exec.CommandContext(limited, argv[0], argv[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &complaint
		err = cmd.Run()
		stdout, stderr = out.String(), complaint.String()
	}
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("%w within %v", errNoAnswer, patience)
	}
	return stdout, stderr, err
}

// askNSS runs a program that asks NSS. Once one does not answer, none is run any more, and
// what is in files is all that is known. ok is false without an answer.
func (h *host) askNSS(ctx context.Context, argv ...string) (answer string, ok bool) {
	if !h.asks {
		return "", false
	}
	out, _, err := h.run(ctx, argv...)
	if errors.Is(err, errNoAnswer) {
		h.asks, h.unanswered = false, fmt.Sprintf("%s: %v", strings.Join(argv, " "), err)
	}
	return out, err == nil
}

// What sshd wants before it says anything, as in an image in which it never ran.
var (
	missingDirectory = regexp.MustCompile(`Missing privilege separation directory: (/\S+)`)
	missingUser      = regexp.MustCompile(`Privilege separation user \S+ does not exist`)
	missingHostKey   = regexp.MustCompile(`no hostkeys available`)
)

// supply gives sshd what it complains to miss, in a sandbox, and reports whether it
// may be asked again.
func (h *host) supply(complaint string) bool {
	directory := missingDirectory.FindStringSubmatch(complaint)
	user, key := missingUser.MatchString(complaint), missingHostKey.MatchString(complaint)
	if directory == nil && !user && !key {
		return false
	}
	var err error
	if h.box == nil {
		if h.box, err = system.NewSandbox("/"); err != nil {
			h.box = nil
			return false
		}
	}
	switch {
	case directory != nil:
		err = h.box.MakeDir(directory[1])
	case user:
		var passwd []byte
		if passwd, err = h.Read("/etc/passwd"); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		err = errors.Join(err, h.box.Write("/etc/passwd", withSSHD(passwd)))
	case key:
		var text []byte
		if text, err = throwawayKey(); err == nil {
			err = h.box.Write(copied+"/key/host", text)
		}
		h.sshd = append(slices.Clone(h.sshd), "-h", copied+"/key/host")
	}
	return err == nil
}

// settings is what sshd -T prints: keyword, lower case, to its values.
type settings map[string][]string

func (s settings) first(keyword string) string {
	if v := s[keyword]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (s settings) is(keyword, value string) bool { return strings.EqualFold(s.first(keyword), value) }

// settings asks sshd what is in force for a connection.
func (h *host) settings(ctx context.Context, c hostconf.Case) (settings, error) {
	var out, complaint string
	var failed error
	for range 4 { // it complains of one thing at a time
		if out, complaint, failed = h.run(ctx, append(slices.Clone(h.sshd), "-T", "-C",
			c.String())...); failed == nil {
			return parseSettings(out), nil
		}
		complaint = cmp.Or(strings.TrimSpace(complaint), failed.Error())
		if !h.supply(complaint) {
			break
		}
	}
	if errors.Is(failed, errNoAnswer) {
		return nil, postern.Errorf(postern.Unavailable, "%s -T: %w", h.sshd[0], failed).
			WithHint("check that getent group answers: sshd asks for groups as it does")
	}
	e := postern.Errorf(postern.Invalid, "%s -T: %s", h.sshd[0], h.copy.Original(complaint))
	if m := missingDirectory.FindStringSubmatch(complaint); m != nil {
		e.Code = postern.Unavailable
		return nil, e.WithHint("start sshd once, or make the directory %s as it does", m[1])
	}
	return nil, e.WithHint("sshd -t names the line; run as root so that sshd can read its host keys")
}

func parseSettings(out string) settings {
	s := settings{}
	for line := range strings.Lines(out) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		keyword = strings.ToLower(keyword)
		s[keyword] = append(s[keyword], value)
	}
	return s
}
