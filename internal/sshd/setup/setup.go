// Package setup writes the configuration that makes a host's sshd ask for two
// factors, puts it in place, and removes it again unless a new login confirms
// it.
package setup

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// Mode is what a host asks for.
type Mode string

// The modes.
const (
	KeyAndCode      Mode = "key-and-code"      // public key, then a code
	PasswordAndCode Mode = "password-and-code" // a code, then the Unix password
	GroupsOnly      Mode = "groups-only"       // key and code for members of Groups; others as before
	Certificates    Mode = "certificates"      // a short-lived certificate that a code was asked for
	// A FIDO2 key that asks for its PIN and a touch: what one has and what one knows.
	HardwareKey        Mode = "hardware-key"
	HardwareKeyAndCode Mode = "hardware-key-and-code" // such a key, then a code
)

// Modes lists them.
var Modes = []Mode{KeyAndCode, PasswordAndCode, GroupsOnly, Certificates, HardwareKey, HardwareKeyAndCode}

// hardware reports whether only FIDO2 keys are accepted.
func (m Mode) hardware() bool { return m == HardwareKey || m == HardwareKeyAndCode }

// Setup describes the right configuration for a host.
type Setup struct {
	Mode   Mode
	Groups []string // for GroupsOnly
	// PasswordGroup is a group whose members have no public key, and give
	// their Unix password in its place; for KeyAndCode.
	PasswordGroup string
	Root          bool // permit root, with the same factors
	// RescueUser is an account for emergencies that can log in from RescueFrom only, with
	// its key and a backup code, whatever applies to others.
	RescueUser string
	RescueFrom string // an address or network
	// Module is pam_postern's name or path; empty means pam_postern.so.
	Module string
	Socket string // empty means pam_postern's own default
	// HostCertificate is a file; empty: none. For Certificates.
	HostCertificate string
	UserCA          []byte // what TrustedUserCAKeys is to hold; for Certificates
	KRL             []byte // what RevokedKeys is to hold; for Certificates
}

// Further files that a setup writes.
const (
	UserCAFile  = "/etc/ssh/postern_user_ca.pub"
	KRLFile     = "/etc/ssh/postern_revoked"
	pamSSHDFile = "/etc/pam.d/sshd"
)

var accountName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}$`)

// Validate reports what a setup lacks.
func (s Setup) Validate() error {
	if !slices.Contains(Modes, s.Mode) {
		return postern.Errorf(postern.Invalid, "there is no mode %q", s.Mode).WithHint("one of %v", Modes)
	}
	for _, name := range slices.Concat(s.Groups, []string{s.PasswordGroup, s.RescueUser}) {
		if name != "" && !accountName.MatchString(name) {
			return postern.Errorf(postern.Invalid, "%q is not the name of an account or group", name)
		}
	}
	switch {
	case (s.Mode == GroupsOnly) != (len(s.Groups) > 0):
		return postern.Errorf(postern.Invalid, "groups go with the mode %s", GroupsOnly)
	case s.PasswordGroup != "" && s.Mode != KeyAndCode:
		return postern.Errorf(postern.Invalid, "a group of people without a key goes with the mode %s", KeyAndCode)
	case s.Mode == Certificates && len(s.UserCA) == 0:
		return postern.Errorf(postern.Invalid, "the mode %s needs the public key of the CA", Certificates)
	case (s.RescueUser == "") != (s.RescueFrom == ""):
		return postern.Errorf(postern.Invalid, "break-glass needs an account and an address")
	case s.RescueUser == "root" && !s.Root:
		return postern.Errorf(postern.Invalid, "root is not permitted to log in").
			WithHint("choose another account, or permit root")
	}
	if s.RescueFrom != "" {
		_, addrErr := netip.ParseAddr(s.RescueFrom)
		_, prefixErr := netip.ParsePrefix(s.RescueFrom)
		if addrErr != nil && prefixErr != nil {
			return postern.Errorf(postern.Invalid, "%q is not an address or network", s.RescueFrom)
		}
	}
	return nil
}

// File is a file that a setup writes.
type File struct {
	Path    string
	Content []byte
	Mode    os.FileMode // of a new file; one that exists keeps its own
	Absent  bool        // there is to be no such file
}

// Files returns the files to write, given the host's own as they are below
// root.
func (s Setup) Files(root string) ([]File, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	h := hostconf.Files{Root: root}
	main, err := h.Read(hostconf.ConfigFile)
	if err != nil {
		return nil, hostconf.ConfigError(err)
	}
	now, err := presentIn(h)
	if err != nil {
		return nil, err
	}
	pam, err := h.Read(h.PAMFile("sshd"))
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "PAM's stack for sshd: %w", err)
	}
	files := []File{
		{Path: hostconf.DropIn, Content: []byte(s.sshdConfig(now)), Mode: 0o644},
		{Path: pamSSHDFile, Content: []byte(s.pamSSHD(string(pam))), Mode: 0o644},
	}
	if !includes(string(main), hostconf.DropIn) {
		line := "Include " + hostconf.DropIn + "\n"
		files = append(files, File{Path: hostconf.ConfigFile, Content: append([]byte(line), main...), Mode: 0o644})
	}
	if s.Mode == Certificates {
		files = append(files, File{Path: UserCAFile, Content: s.UserCA, Mode: 0o644},
			File{Path: KRLFile, Content: s.KRL, Mode: 0o644})
	}
	return files, nil
}

// includes reports whether sshd_config includes a file of ours before it sets anything
// itself: the first value takes effect.
func includes(config, ours string) bool {
	for line := range strings.Lines(config) {
		words := hostconf.Words(strings.TrimSpace(line))
		if len(words) == 0 {
			continue
		}
		return strings.EqualFold(words[0], "include") && slices.ContainsFunc(words[1:], func(p string) bool {
			return hostconf.Wildcard(p, ours) || hostconf.Wildcard("/etc/ssh/"+p, ours)
		})
	}
	return false
}

// present is what a host's sshd_config says outside of Match blocks, without our own
// part: keyword to the arguments of its first line, which takes effect.
type present map[string][]string

func presentIn(h hostconf.Files) (present, error) {
	all, err := h.Directives(hostconf.ConfigFile)
	if err != nil {
		return nil, hostconf.ConfigError(err)
	}
	now := present{}
	for _, d := range all {
		if d.File == hostconf.DropIn {
			continue
		}
		if d.Keyword == "authenticationmethods" && slices.Contains(d.Args, "any") {
			return nil, postern.Errorf(postern.Invalid, "%s: sshd takes no other AuthenticationMethods beside any",
				d.Line).WithHint("remove the line: any is the default")
		}
		if _, ok := now[d.Keyword]; !ok && d.Match == nil {
			now[d.Keyword] = d.Args
		}
	}
	return now, nil
}

func (p present) is(keyword, value string) bool {
	return len(p[keyword]) > 0 && strings.EqualFold(p[keyword][0], value)
}

// othersMethods returns the AuthenticationMethods that change nothing for users who need
// no code, although UsePAM is on from now on; "" if the present ones require two methods
// and stay.
func (p present) othersMethods() string {
	lists := p["authenticationmethods"]
	if len(lists) == 0 {
		lists = []string{"publickey", "password", "keyboard-interactive", "gssapi-with-mic", "hostbased"}
	}
	if !slices.ContainsFunc(lists, func(l string) bool { return !strings.Contains(l, ",") }) {
		return ""
	}
	if !p.is("usepam", "yes") { // then it could not be used
		lists = slices.DeleteFunc(slices.Clone(lists), func(l string) bool {
			return strings.Contains(l, "keyboard-interactive")
		})
	}
	return strings.Join(lists, " ")
}

// graceMax is how long a login may take.
const graceMax = time.Minute

// briefGrace reports whether a LoginGraceTime below graceMax is set.
func (p present) briefGrace() bool {
	if len(p["logingracetime"]) == 0 {
		return false
	}
	text := p["logingracetime"][0]
	if _, err := strconv.Atoi(text); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(strings.ToLower(text)) // fails for days, weeks
	return err == nil && d > 0 && d < graceMax
}

const keyThenCode = "publickey,keyboard-interactive:pam"

// Signature algorithms of PubkeyAcceptedAlgorithms (sshd_config(5)): of FIDO2 keys,
// and of keys in files.
const (
	hardwareAlgorithms = "sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com"
	fileAlgorithms     = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521," +
		"rsa-sha2-512,rsa-sha2-256"
)

// sshdConfig returns the part of sshd_config that is ours, beside what the host
// has.
func (s Setup) sshdConfig(now present) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by postern ssh config. The first value takes effect: keep this file first.")
	line("UsePAM yes")
	if !now.briefGrace() {
		line("LoginGraceTime %d", int(graceMax.Seconds()))
	}
	line("LogLevel VERBOSE") // logs the first of two factors, too: which key or certificate
	// Where only some need both factors, root's own block below permits root.
	line("PermitRootLogin %s", map[bool]string{true: "yes", false: "no"}[s.Root && s.Mode != GroupsOnly])
	switch s.Mode {
	case KeyAndCode, PasswordAndCode:
		line("PubkeyAuthentication %s", map[bool]string{true: "yes", false: "no"}[s.Mode == KeyAndCode])
		line("PasswordAuthentication no")
		line("KbdInteractiveAuthentication yes")
		line("AuthenticationMethods %s", map[Mode]string{
			KeyAndCode:      keyThenCode,
			PasswordAndCode: "keyboard-interactive:pam",
		}[s.Mode])
	case GroupsOnly:
		line("# Members of the groups below need both; others log in as before.")
		if methods := now.othersMethods(); methods != "" {
			line(hostconf.OneFactorMark)
			line("AuthenticationMethods %s", methods)
		}
	case HardwareKey, HardwareKeyAndCode:
		line("PubkeyAuthentication yes")
		line("PubkeyAcceptedAlgorithms %s", hardwareAlgorithms)
		// Also touch-required: otherwise no-touch-required in authorized_keys waives it.
		line("PubkeyAuthOptions touch-required verify-required")
		line("PasswordAuthentication no")
		line("KbdInteractiveAuthentication %s",
			map[bool]string{true: "yes", false: "no"}[s.Mode == HardwareKeyAndCode])
		line("AuthenticationMethods %s", map[Mode]string{
			HardwareKey:        "publickey",
			HardwareKeyAndCode: keyThenCode,
		}[s.Mode])
	case Certificates:
		line("PubkeyAuthentication yes")
		line("PasswordAuthentication no")
		line("KbdInteractiveAuthentication no")
		line("AuthenticationMethods publickey")
		line("AuthorizedKeysFile none")
		line("AuthorizedKeysCommand none")
		line("TrustedUserCAKeys %s", UserCAFile)
		line("RevokedKeys %s", KRLFile)
		if s.HostCertificate != "" {
			line("HostCertificate %s", s.HostCertificate)
		}
	}
	s.matchBlocks(line)
	return b.String()
}

// matchBlocks writes the blocks for some users. The first that matches takes effect, so
// the account for emergencies comes first.
func (s Setup) matchBlocks(line func(format string, args ...any)) {
	if s.RescueUser != "" {
		line("Match User %s Address %s", s.RescueUser, s.RescueFrom)
		line("\tPubkeyAuthentication yes")
		line("\tPasswordAuthentication no")
		line("\tKbdInteractiveAuthentication yes")
		line("\tAuthenticationMethods %s", keyThenCode)
		line("\tAuthorizedKeysFile .ssh/authorized_keys")
		if s.Mode.hardware() { // the account for emergencies may have its key in a file
			line("\tPubkeyAcceptedAlgorithms %s,%s", hardwareAlgorithms, fileAlgorithms)
		}
		line("Match User %s", s.RescueUser)
		line("\tPubkeyAuthentication no")
		line("\tPasswordAuthentication no")
		line("\tKbdInteractiveAuthentication no")
		line("\tAuthenticationMethods publickey")
	}
	if s.PasswordGroup != "" {
		line("Match Group %s", s.PasswordGroup)
		line("\tPubkeyAuthentication no")
		line("\tAuthenticationMethods keyboard-interactive:pam")
	}
	both := func() {
		line("\tPubkeyAuthentication yes")
		line("\tPasswordAuthentication no")
		line("\tKbdInteractiveAuthentication yes")
		line("\tAuthenticationMethods %s", keyThenCode)
	}
	if len(s.Groups) > 0 {
		if s.Root {
			line("Match User root")
			line("\tPermitRootLogin yes")
			both()
		}
		line("Match Group %s", strings.Join(s.Groups, ","))
		both()
	}
	line("Match all")
}

// pamOff is before a line of PAM's file that ours replace.
const pamOff = "# postern: off: "

// pamSSHD returns PAM's file for sshd with our lines in it: those of auth where
// the first of auth was, one above the account lines, one at the end.
func (s Setup) pamSSHD(old string) string {
	var out []string
	block := func(lines []string) {
		if len(lines) > 0 {
			out = append(append(append(out, hostconf.PAMBegin), lines...), hostconf.PAMEnd)
		}
	}
	auth, account := s.pamAuth(), s.pamAccount()
	for _, line := range logicalLines(strings.TrimRight(withoutOurs(old), "\n")) {
		switch pamPhase(line) {
		case "auth":
			block(auth)
			auth = nil
			if s.replaces(line) {
				line = pamOff + strings.ReplaceAll(line, "\n", "\n"+pamOff)
			}
		case "account":
			block(account)
			account = nil
		}
		out = append(out, line)
	}
	block(slices.Concat(auth, account, []string{"session optional " + s.module() + " timeout=2"}))
	return strings.Join(out, "\n") + "\n"
}

// logicalLines splits text at the ends of lines, but for those that a backslash
// continues.
func logicalLines(text string) []string {
	var out []string
	continued := false
	for _, line := range strings.Split(text, "\n") {
		if continued {
			out[len(out)-1] += "\n" + line
		} else {
			out = append(out, line)
		}
		continued = strings.HasSuffix(line, "\\") && !strings.HasPrefix(strings.TrimSpace(line), "#")
	}
	return out
}

// replaces reports whether our auth lines stand in for one that was there.
func (s Setup) replaces(line string) bool {
	if s.Mode == KeyAndCode && s.PasswordGroup == "" || s.Mode == HardwareKeyAndCode {
		return true
	}
	words := hostconf.PAMWords(strings.ReplaceAll(line, "\\\n", " "))
	module := strings.TrimSuffix(filepath.Base(words[min(2, len(words)-1)]), ".so")
	return s.Mode != GroupsOnly && hostconf.PAMLine{Module: module}.AsksCode()
}

// pamAuth returns our auth lines.
func (s Setup) pamAuth() []string {
	var lines []string
	if s.RescueUser != "" {
		lines = append(lines,
			"auth [success=1 default=ignore] pam_succeed_if.so quiet user != "+s.RescueUser,
			"auth [success=done default=die] "+s.module()+" [prompt=Recovery code: ]")
	}
	switch s.Mode {
	case KeyAndCode, HardwareKeyAndCode:
		if s.PasswordGroup == "" {
			return append(lines, "auth required "+s.module())
		}
		return append(lines,
			"auth requisite "+s.module(),
			"auth [success=done default=ignore] pam_succeed_if.so quiet user notingroup "+s.PasswordGroup)
	case PasswordAndCode:
		return append(lines, "auth requisite "+s.module())
	case GroupsOnly:
		return append(lines,
			"auth [success=1 default=ignore] pam_succeed_if.so quiet user notingroup "+strings.Join(s.Groups, ":"),
			"auth [success=done default=die] "+s.module())
	}
	return lines
}

// certificateAccount is "required" (pam.conf(5)), but that a server that does not answer
// changes nothing.
const certificateAccount = "[success=ok new_authtok_reqd=ok ignore=ignore authinfo_unavail=ignore default=bad]"

// pamAccount returns our account lines: a suspended person is refused whatever proves
// them. Who has nothing to do with us does not depend on us. Certificates are accepted also
// while no server answers: both factors were given for them, and sshd itself refuses those
// of suspended people by the KRL. Of a key nothing else says whether its person is active.
func (s Setup) pamAccount() []string {
	line := "account required " + s.module()
	if s.Mode == Certificates {
		return []string{"account " + certificateAccount + " " + s.module()}
	}
	if s.Mode == GroupsOnly {
		return []string{"account [success=1 default=ignore] pam_succeed_if.so quiet user notingroup " +
			strings.Join(s.Groups, ":"), line}
	}
	return []string{line}
}

func (s Setup) module() string {
	module := s.Module
	if module == "" {
		module = "pam_postern.so"
	}
	if s.Socket != "" {
		module += " socket=" + s.Socket
	}
	return module
}

// withoutOurs undoes an earlier setup.
func withoutOurs(text string) string {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch bare := strings.TrimRight(line, "\n"); {
		case bare == hostconf.PAMBegin:
			inside = true
		case bare == hostconf.PAMEnd:
			inside = false
		case !inside:
			out.WriteString(strings.TrimPrefix(line, pamOff))
		}
	}
	return out.String()
}

// pamPhase returns the phase of a line, or of what it includes by Debian's
// custom of common-PHASE.
func pamPhase(line string) string {
	words := hostconf.PAMWords(strings.ReplaceAll(line, "\\\n", " "))
	if len(words) >= 2 && words[0] == "@include" {
		return strings.TrimPrefix(words[1], "common-")
	}
	if len(words) >= 3 {
		return strings.ToLower(strings.TrimPrefix(words[0], "-"))
	}
	return ""
}
