package format

import (
	"regexp"
	"strings"
)

// Subcommands of virsh that take a secret, and how many words after them are
// none: the secret's UUID, the domain.
var secretCommands = map[string]int{
	"secret-set-value":     1,
	"set-user-password":    2,
	"qemu-monitor-command": 1,
	"qemu-agent-command":   1,
}

// secretWords mark an argument, or the one behind it, as secret.
var secretWords = []string{"password", "passwd", "passphrase", "secret", "token", "base64", "apikey", "api-key"}

const masked = "***"

// within are the places in a word behind which its secret stands: QEMU's secret
// objects and firmware configuration, a URL's password, and JSON, of which
// nothing is shown.
var within = regexp.MustCompile(
	`(?i)secret,|\bdata=|\bstring=|\bcookie=|://[^/@:]*:[^/@]*@|\{.*(?:password|passwd|passphrase|secret|token|` +
		`base64|data|key)`)

// maskWithin hides what stands in a word behind such a place.
func maskWithin(w string) string {
	at := within.FindStringIndex(w)
	if at == nil {
		return w
	}
	end := at[1]
	switch w[at[0]] {
	case ':':
		return w[:at[0]] + "://" + masked + w[end:]
	case '{':
		end = at[0]
	}
	return w[:end] + masked
}

// MaskCommand hides in a process's command line what looks like a secret: the
// operands of virsh's commands that take one, and options by their names. What
// it cannot know is a word like any other.
func MaskCommand(line string) string {
	words := strings.Split(line, " ")
	keep := -1 // operands that may still be shown; -1 for all
	next := false
	for i, w := range words {
		option := strings.HasPrefix(w, "-")
		if n, ok := secretCommands[strings.Trim(w, `"';`)]; ok && keep < 0 {
			keep = n
			continue
		}
		switch {
		case next && !option:
			words[i], next = masked, false
		case keep == 0 && !option:
			words[i] = masked
		case option || strings.Contains(w, "="):
			words[i], next = maskOption(w)
		case keep > 0:
			keep--
		}
		words[i] = maskWithin(words[i])
	}
	return strings.Join(words, " ")
}

// maskOption hides the value of NAME=VALUE when the name is a secret's; next reports
// that the value is the next word.
func maskOption(w string) (shown string, next bool) {
	name, value, has := strings.Cut(w, "=")
	low := strings.ToLower(name)
	for _, s := range secretWords {
		if !strings.Contains(low, s) {
			continue
		}
		if has && value != "" {
			return name + "=" + masked, false
		}
		return w, !has
	}
	return w, false
}
