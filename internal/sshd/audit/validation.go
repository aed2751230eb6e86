package audit

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/hostconf"
)

var (
	gateWords     = regexp.MustCompile(`(?i)yubi|wsapi|\botp\b|oathtool|google.authenticator|login_duo|totp`)
	plainWSAPI    = regexp.MustCompile(`http://[^\s"']*wsapi`)
	uncheckedTLS  = regexp.MustCompile(`--no-check-certificate|\bcurl\b[^|\n]*\s(-k|--insecure)\b|verify\s*=\s*False`)
	checksAnswer  = regexp.MustCompile(`(?i)hmac|\bh=`)
	looseUserGrep = regexp.MustCompile(`\bgrep\b[^|\n]*["' ](\$\{?(USER|LOGNAME|USERNAME)\}?|\$\((whoami|id -un)\)|` +
		"`(whoami|id -un)`" + `):?["' ]`)
	assignedID = regexp.MustCompile(`(?m)^\s*(?:export\s+)?YUBICO_API_ID=["']?(\d+)["']?`)
)

// checkedHTTPS is the fix of validation over plain HTTP.
const checkedHTTPS = "use https://, and a key= to check the signature with"

// judgeValidation looks at how codes are validated: by pam_yubico, and by a
// ForceCommand script that checks codes.
func (a *audit) judgeValidation() {
	a.judgePAMYubico(a.stack)
	a.judgeModules(a.stack)
	for _, d := range a.accesses {
		if g := a.gate(d); g != nil {
			a.judgeScript(g)
		}
	}
	a.judgeShellConfigs()
	a.judgeMappings()
}

func (a *audit) judgePAMYubico(stack []hostconf.PAMLine) {
	for _, l := range stack {
		a.judgePAMYubico(l.Sub)
		if l.Module != "pam_yubico" || slices.Contains(l.Args, "mode=challenge-response") {
			continue
		}
		id, key := "", ""
		for _, arg := range l.Args {
			name, value, _ := strings.Cut(arg, "=")
			switch name {
			case "id":
				id = value
			case "key":
				key = value
			case "url", "urllist":
				if strings.Contains(value, "http://") {
					a.plainHTTP(l.Line, checkedHTTPS)
				}
			}
		}
		if id == "16" {
			a.demoID(l.Line)
		}
		if key == "" {
			a.unsigned(l.Line, "set key=, so that an attacker who breaks TLS cannot forge answers")
		}
	}
}

func (a *audit) judgeScript(g *gateScript) {
	number := 0
	for text := range strings.Lines(g.text) {
		number++
		at := hostconf.Line{File: g.path, Line: number, Text: strings.TrimSpace(text)}
		if strings.HasPrefix(at.Text, "#") {
			continue
		}
		if plainWSAPI.MatchString(text) {
			a.plainHTTP(at, checkedHTTPS)
		}
		if uncheckedTLS.MatchString(text) {
			a.add(Finding{
				ID:       "validation-unverified-tls",
				Severity: Critical,
				Title:    "the validation service's certificate is not checked",
				Where:    at,
				Proof:    "answer status=OK in the service's name, from any machine on the way",
				Fix:      "remove the option",
			})
		}
		if looseUserGrep.MatchString(text) && !strings.Contains(text, "^") {
			a.add(Finding{
				ID:       "unanchored-user",
				Severity: Critical,
				Title:    "the user's name is looked for anywhere in the line: bob may use jimbob's key",
				Where:    at,
				Proof: fmt.Sprintf("printf 'jimbob:cccccccccccc\\n' | grep 'bob:'   # what %s does for bob",
					g.path),
				Fix: `match the whole field: awk -F: -v u="$USER" '$1 == u'`,
			})
		}
		if m := assignedID.FindStringSubmatch(text); m != nil && m[1] == "16" && !a.assignsID() {
			a.demoID(at)
		}
	}
	if strings.Contains(g.text, "wsapi") && !checksAnswer.MatchString(g.text) {
		a.unsigned(hostconf.Line{File: g.path},
			"use Postern's own ForceCommand, which checks the answer's signature, code and nonce")
	}
}

// assignsID reports whether /etc/yubikey_shell gives an API identifier.
func (a *audit) assignsID() bool {
	b, err := a.Read(hostconf.ShellConfigFile)
	return err == nil && assignedID.Match(b)
}

// judgeShellConfigs looks at the settings of the script of old, and at those of
// each postern ssh shell in use.
func (a *audit) judgeShellConfigs() {
	files, ours := []string{hostconf.ShellConfigFile}, map[string]bool{}
	for _, d := range a.accesses {
		if g := a.gate(d); g != nil && g.postern {
			ours[g.config] = true
			if !slices.Contains(files, g.config) {
				files = append(files, g.config)
			}
		}
	}
	for _, file := range files {
		a.judgeShellConfig(file, ours[file])
	}
}

// judgeShellConfig looks at one file of settings; ours says that postern ssh
// shell reads it, which asks an outside service if there is an identifier.
func (a *audit) judgeShellConfig(file string, ours bool) {
	b, err := a.Read(file)
	if err != nil {
		return
	}
	var identifier hostconf.Line
	signed, number := false, 0
	for text := range strings.Lines(string(b)) {
		number++
		at := hostconf.Line{File: file, Line: number, Text: strings.TrimSpace(text)}
		if strings.HasPrefix(at.Text, "#") {
			continue
		}
		if m := assignedID.FindStringSubmatch(text); m != nil && strings.Trim(m[1], "0") != "" {
			identifier = at
			if m[1] == "16" {
				a.demoID(at)
			}
		}
		c, _ := hostconf.ParseShellConfig([]byte(text))
		signed = signed || c.APIKey != ""
		if u, err := url.Parse(c.URL); err == nil && u.Scheme == "http" && !sshd.OnThisHost(u.Hostname()) {
			a.plainHTTP(at,
				"YUBICO_API_URL=https://…, and the identifier's YUBICO_API_KEY= to check the signature with")
		}
	}
	if ours && identifier.File != "" && !signed {
		a.unsigned(identifier,
			"add the identifier's YUBICO_API_KEY=; or take YUBICO_API_ID out, and the Postern daemon of this host "+
				"is asked")
	}
}

func (a *audit) plainHTTP(at hostconf.Line, fix string) {
	a.add(Finding{
		ID: "validation-plain-http", Severity: Critical, Title: "codes are validated over plain HTTP", Where: at,
		Proof: "answer status=OK to the request, from any machine on the way",
		Fix:   fix,
	})
}

func (a *audit) unsigned(at hostconf.Line, fix string) {
	a.add(Finding{
		ID:       "validation-unsigned",
		Severity: Medium,
		Title:    "the validation service's answers are not checked for their signature",
		Where:    at,
		Proof:    "an answer without h= is taken",
		Fix:      fix,
	})
}

func (a *audit) demoID(at hostconf.Line) {
	a.add(Finding{
		ID:       "validation-shared-id",
		Severity: Medium,
		Title:    "API identifier 16 is shared by all, and its key is public",
		Where:    at,
		Proof:    "sign any answer with the published key of identifier 16",
		Fix:      "use an identifier of your own, or Postern's validation service",
	})
}

// judgeModules looks at settings of PAM modules that ask for a code.
func (a *audit) judgeModules(stack []hostconf.PAMLine) {
	for _, l := range stack {
		a.judgeModules(l.Sub)
		switch {
		case l.Module == "pam_privacyidea" && slices.Contains(l.Args, "nosslverify"):
			a.add(Finding{
				ID:       "validation-unverified-tls",
				Severity: Critical,
				Title:    "the validation service's certificate is not checked",
				Where:    l.Line,
				Proof:    "accept any code in the service's name, from any machine on the way",
				Fix:      "remove nosslverify",
			})
		case l.Module == "pam_google_authenticator" && hasOption(l.Args, "grace_period="):
			a.add(Finding{
				ID:       "pam-grace-period",
				Severity: Medium,
				Title:    "for a while after a login the same address needs no code",
				Where:    l.Line,
				Proof:    "log in with a code, log out, and log in again from the same address without one",
				Fix:      "remove grace_period=",
			})
		case l.Module == "pam_sss" && l.Own.AsksCode:
			f := Finding{
				ID:       "sssd-code-per-account",
				Severity: Low,
				Title:    "the directory decides for each account whether SSSD asks for a code",
				Where:    l.Line,
				Proof:    "ipa user-show ACCOUNT --all   # \"User authentication types\" must be otp alone",
				Fix:      "require otp for all accounts and nothing else in the directory",
			}
			if l.Own.PerAccount {
				f.Severity, f.opens = High, true
				f.Fix += ", and say so with a section [prompting/2fa] in " + l.Own.File
			}
			a.add(f)
		}
	}
}

func hasOption(args []string, prefix string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, prefix) && a != prefix+"0" })
}
