package cli

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/postern-project/postern"
	"github.com/spf13/cobra"
)

// errorHint is what to do about an error.
type errorHint struct {
	err  error
	hint string
}

// commands are the commands that do what a package's hint, or a finding of the
// doctor's, says. A hint that begins so has the command put behind it.
var commands = []struct{ hint, command string }{
	{"list the certificates", "postern ca list"},
	{"choose another directory, or replace the file", "--out DIRECTORY, or --force"},
	{"list the keys and authenticators", "postern otp list"},
	{"add the person", "postern user add NAME"},
	{"give the person a key or an authenticator", "postern otp add --person NAME"},
	{"give the passphrase in a file", "--passphrase-file FILE"},
	{"fix what the warnings say, or apply it by force", "--force"},
	{"correct the file, or import the rest of it", "--skip-bad"},
	{"name another directory, or move the file away", "--out DIRECTORY"},
	{"make the next server intermediate", "postern ca intermediate new server"},
	{"make the next client intermediate", "postern ca intermediate new client"},
	{"create the certificate authority", "postern init"},
	{"give the API client's number", "--id NUMBER"},
	{"lend the root's key for this once", "--root-key FILE --passphrase-file FILE"},
	{"give the private key in a file", "--key FILE"},
	{"choose another state directory for a second one", "--state DIRECTORY"},
	{"make the next root", "postern ca root new"},
	{"retire the older key of the timeline first", "postern log key retire"},
	{"make the next key of the timeline first", "postern log key new"},
	{"retire the older root first", "postern ca root retire ROOT"},
	{"retire ", "postern ca root retire "},
	{"make its successor first", "postern ca root new, or postern ca intermediate new ssh-user or ssh-host"},
	{
		"see who has certificates of the older CA, and renew them, or revoke them with it",
		"postern ca root status, or --revoke-certificates",
	},
	{"export the root's key first", "postern ca root export-key --out FILE"},
	{"restore the database from a backup", "postern restore FILE --state DIRECTORY"},
	{"restore the root's key, revoke, and remove the key again", "postern ca root restore-key --key FILE"},
	{"verify the timeline", "postern log verify"},
	{"name this host as its certificate's person is named, ", "postern agent --host "},
	{"name this host", "--host NAME"},
	{"resume the person first", "postern user resume NAME"},
	{"resume the host first", "postern host resume NAME"},
	{"invite the host on the server, and run what that prints", "postern host add NAME"},
	{"name the address by which hosts reach this server", "--server URL"},
	{"invite it again, if it was installed anew", "--again"},
	{"invite the host again", "postern host add NAME --again, on the server"},
	{"start the server", "postern run"},
	{"name that server", "--server URL"},
	{
		"issue one to a person of the group agents, on the server",
		"postern user add NAME --group agents, and postern ca issue --client NAME",
	},
	{"list the files of libvirt and the processes that have them mapped", "postern trace probes"},
	{"use a smaller buffer", "--buffer SIZE"},
	{"record with stacks", "postern trace record --stack FILE"},
	{"use your own account and sudo, or permit root", "postern ssh config --root"},
	{"get an SSH certificate first", "postern ssh login SERVER"},
	{"make a software token", "postern otp token new FILE"},
	{"create the state directory", "postern init"},
	{"accept the restored state", "postern otp restored"},
	{"give the new passphrase in a file", "--new-passphrase-file FILE"},
	{"enable a YubiKey with a code", "postern otp enable ID --code CODE"},
	{"give the file with the age identity", "--identity FILE"},
	{"finish changing the key", "postern rekey"},
	{"export the root's key, keep the file elsewhere", "postern ca root export-key, and postern ca root remove-key"},
	{"choose the address by which others reach", "postern ca url http://HOST"},
	{"renew certificate ", "postern ca renew "},
	{"audit SSH as root", "sudo postern ssh check"},
	{"audit SSH", "postern ssh check"},
	{"audit it by its configuration ", "postern ssh check --config "},
	{"have sshd ask for a second factor", "postern ssh config --apply"},
	{
		"have sshd ask for key and code",
		"postern ssh config --mode key-and-code --apply, or ForceCommand postern ssh shell",
	},
	{"remove the first line, or write the configuration of sshd again", "postern ssh config"},
	{"use Postern's own ForceCommand", "postern ssh shell"},
	{
		"confirm the configuration of sshd, or put back",
		"postern ssh config --confirm in a new SSH login, or postern ssh config --within 0s --roll-back ",
	},
}

// hintOf returns what to do about an error, in commands where there are any.
func hintOf(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return inCommands(postern.HintOf(err))
}

// inCommands puts the command behind a hint that a command does.
func inCommands(hint string) string {
	for _, c := range commands {
		named, ok := strings.CutPrefix(hint, c.hint)
		switch {
		case !ok:
		case strings.HasSuffix(c.command, " "):
			return hint + ": " + c.command + strings.TrimSpace(named)
		default:
			return hint + ": " + c.command
		}
	}
	return hint
}

// hintFor returns what to do about the error that a command ended with. Where
// none was given, it is where to look.
func (a *app) hintFor(ctx context.Context, cmd *cobra.Command, err error) string {
	if hint := hintOf(err); hint != "" {
		return hint
	}
	return cmp.Or(a.whereToLook(ctx, err), "see "+cmd.CommandPath()+" --help")
}
