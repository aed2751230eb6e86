package otp_test

import (
	"crypto/sha1" // mod_authn_yubikey's
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// Real clients of the validation protocol against the service.

var apiKey64 = base64.StdEncoding.EncodeToString(apiKey)

// run runs a client and returns what it printed and its exit code. No proxy of
// the environment gets in between.
func run(t *testing.T, stdin, program string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("%s: %v", program, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// newPeerRig is a rig with client 1 and a key.
func newPeerRig(t *testing.T) (*rig, *otp.SoftToken) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	return h, h.token(t, "")
}

func TestYkclient(t *testing.T) {
	ykclient := posterntest.Need(t, "ykclient")
	h, tok := newPeerRig(t)
	for _, path := range []string{"/wsapi/2.0/verify", "/wsapi/verify"} {
		ask := func(key, code string) (string, int) {
			args := []string{"--url", h.server.URL + path, "--apikey", key, "1", code}
			return run(t, "", ykclient, args...)
		}
		code := touch(t, tok)
		if out, exit := ask(apiKey64, code); exit != 0 {
			t.Errorf("%s: a good code: exit %d\n%s", path, exit, out)
		}
		if out, exit := ask(apiKey64, code); exit != 2 {
			t.Errorf("%s: a replay: exit %d\n%s", path, exit, out)
		}
		if out, exit := ask(apiKey64, flip(touch(t, tok))); exit != 3 {
			t.Errorf("%s: a bad code: exit %d\n%s", path, exit, out)
		}
		if out, exit := ask(base64.StdEncoding.EncodeToString([]byte("another key")), touch(t, tok)); exit == 0 {
			t.Errorf("%s: a wrong API key: exit %d\n%s", path, exit, out)
		}
	}
}

func TestPerlClient(t *testing.T) {
	perl := posterntest.Need(t, "perl")
	if err := exec.Command(perl, "-MAuth::Yubikey_WebClient", "-e", "1").Run(); err != nil {
		posterntest.Missing(t, "needs Perl's Auth::Yubikey_WebClient (libauth-yubikey-webclient-perl)")
	}
	h, tok := newPeerRig(t)
	const script = `use Auth::Yubikey_WebClient; my ($url, $api, $otp) = @ARGV;
		print Auth::Yubikey_WebClient->new({id => 1, api => $api, url => $url})->otp($otp)`
	ask := func(code string) string {
		out, _ := run(t, "", perl, "-e", script, h.server.URL+"/wsapi/2.0/verify", apiKey64, code)
		return out
	}
	code := touch(t, tok)
	for _, c := range []struct{ code, want string }{
		{code, "OK"},
		{code, "ERR_REPLAYED"},
		{flip(touch(t, tok)), "ERR_BAD_OTP"},
		{strings.ToUpper(touch(t, tok)), "OK"},
	} {
		// Its nonces of one second are all the same, so a replay may be one of the request.
		if got := ask(c.code); got != c.want && !(c.want == "ERR_REPLAYED" && strings.HasPrefix(got, c.want)) {
			t.Errorf("%q, want %s", got, c.want)
		}
	}
}

func TestPythonClient(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import yubiotp.client").Run(); err != nil {
		posterntest.Missing(t, "needs Python's yubiotp (python3-yubiotp)")
	}
	h, tok := newPeerRig(t)
	const script = `
import sys
from yubiotp.client import YubiClient10, YubiClient11, YubiClient20
from base64 import b64decode
url, api, *codes = sys.argv[1:]
key = b64decode(api)
for make, path in (
    (YubiClient10, "/wsapi/verify"),
    (lambda i, k: YubiClient11(i, k, timestamp=True), "/wsapi/1.1/verify"),
    (lambda i, k: YubiClient20(i, k, timestamp=True, sl="secure", timeout=5), "/wsapi/2.0/verify"),
):
    client = make(1, key)
    client.base_url = url + path
    good, bad = codes.pop(0), codes.pop(0)
    for code in good, good, bad:
        answer = client.verify(code)
        print(answer.status(), answer.is_valid(strict=False))
`
	args := []string{"-c", script, h.server.URL, apiKey64}
	for range 3 {
		args = append(args, touch(t, tok), flip(touch(t, tok)))
	}
	out, _ := run(t, "", python, args...)
	if want := strings.Repeat("OK True\nREPLAYED_OTP True\nBAD_OTP True\n", 3); out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// TestPythonCodec has Debian's independent codec read our codes and write some
// that we read.
func TestPythonCodec(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import yubiotp.otp").Run(); err != nil {
		posterntest.Missing(t, "needs Python's yubiotp (python3-yubiotp)")
	}
	tok := otp.NewSoftToken()
	const script = `
import sys
from binascii import unhexlify
from yubiotp.otp import decode_otp
key, *codes = sys.argv[1:]
for c in codes:
    public, otp = decode_otp(c.encode(), unhexlify(key))
    print(public.decode(), otp.uid.hex(), otp.session, otp.counter)
`
	key := fmt.Sprintf("%x", tok.Secret.Key[:])
	out, _ := run(t, "", python, "-c", script, key, touch(t, tok), touch(t, tok))
	want := fmt.Sprintf("%[1]s %[2]x 1 0\n%[1]s %[2]x 1 1\n", tok.PublicID, tok.Secret.PrivateID[:])
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// TestLibyubikey has yubico-c's programs read and write codes.
func TestLibyubikey(t *testing.T) {
	parse, generate := posterntest.Need(t, "ykparse"), posterntest.Need(t, "ykgenerate")
	tok := otp.NewSoftToken()
	key := fmt.Sprintf("%x", tok.Secret.Key[:])
	out, exit := run(t, "", parse, key, touch(t, tok)[12:])
	if exit != 0 || !strings.Contains(out, "counter: 1 (0x0001)") ||
		!strings.Contains(strings.ReplaceAll(out, " ", ""), fmt.Sprintf("uid:%x", tok.Secret.PrivateID[:])) {
		t.Errorf("ykparse: exit %d\n%s", exit, out)
	}
	out, exit = run(t, "", generate, key, fmt.Sprintf("%x", tok.Secret.PrivateID[:]), "0013", "c230", "00", "11")
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	must(t, h.otp.AddKeys(t.Context(), postern.Actor{},
		[]*otp.Key{{PublicID: tok.PublicID, Secret: &tok.Secret, Last: otp.Never}}, false))
	got := h.ask(t, "/wsapi/2.0/verify", query("id", "1", "nonce", nonce, "timestamp", "1", "otp",
		tok.PublicID+strings.TrimSpace(out)))
	if exit != 0 || got["status"] != "OK" || got["sessioncounter"] != "19" || got["sessionuse"] != "17" ||
		got["timestamp"] != "49712" {
		t.Errorf("ykgenerate's code: %v\n%s", got, out)
	}
}

// TestLibpamYubico asks through PAM, with a service file in a mount namespace.
func TestLibpamYubico(t *testing.T) {
	posterntest.NeedRoot(t)
	unshare, pamtester := posterntest.Need(t, "unshare"), posterntest.Need(t, "pamtester")
	if _, err := os.Stat("/lib/security/pam_yubico.so"); err != nil {
		posterntest.Missing(t, "needs libpam-yubico")
	}
	h, tok := newPeerRig(t)
	unknown := h.token(t, "")
	dir := t.TempDir()
	mappings := filepath.Join(dir, "mappings")
	must(t, os.WriteFile(mappings, []byte("root:"+tok.PublicID+"\n"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "pam.d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "pam.d", "postern-test"), []byte(fmt.Sprintf(
		"auth required pam_yubico.so id=1 key=%s urllist=%s/wsapi/2.0/verify authfile=%s\n"+
			"account required pam_permit.so\n",
		apiKey64, h.server.URL, mappings)), 0o644))
	login := func(code string) (string, bool) {
		out, exit := run(t, code+"\n", unshare, "--mount", "sh", "-c",
			`mount --bind "$1/pam.d" /etc/pam.d && exec "$2" postern-test root authenticate`, "sh", dir, pamtester)
		return out, exit == 0
	}
	code := touch(t, tok)
	for _, c := range []struct {
		name, code string
		want       bool
	}{
		{"a good code", code, true},
		{"the same again", code, false},
		{"the next", touch(t, tok), true},
		{"another key", touch(t, unknown), false},
		{"a bad code", flip(touch(t, tok)), false},
	} {
		if out, ok := login(c.code); ok != c.want {
			t.Errorf("%s: %v\n%s", c.name, ok, out)
		}
	}
}

func TestFreeRADIUS(t *testing.T) {
	posterntest.NeedRoot(t)
	radius, radclient := posterntest.Need(t, "freeradius"), posterntest.Need(t, "radclient")
	if _, err := os.Stat("/usr/lib/freeradius/rlm_yubikey.so"); err != nil {
		posterntest.Missing(t, "needs freeradius-yubikey")
	}
	h, tok := newPeerRig(t)
	dir := t.TempDir()
	port, tcp := posterntest.FreePort(t), posterntest.FreePort(t)
	must(t, os.WriteFile(filepath.Join(dir, "radiusd.conf"), []byte(fmt.Sprintf(`
prefix = /usr
logdir = %[1]s
raddbdir = %[1]s
confdir = %[1]s
run_dir = %[1]s
libdir = /usr/lib/freeradius
log {
	destination = stdout
}
security {
	allow_core_dumps = no
}
thread pool {
	start_servers = 1
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 2
}
client localhost {
	ipaddr = 127.0.0.1
	secret = testing123
	proto = *
}
modules {
	yubikey {
		id_length = 12
		split = yes
		decrypt = no
		validate = yes
		validation {
			client_id = 1
			api_key = "%[4]s"
			servers {
				uri = "%[5]s/wsapi/2.0/verify?id=%%d&otp=%%s"
			}
			pool {
				start = 1
				min = 1
				max = 4
				spare = 1
				uses = 0
				lifetime = 0
				idle_timeout = 60
			}
		}
	}
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[2]d
	}
	listen {
		type = auth
		proto = tcp
		ipaddr = 127.0.0.1
		port = %[3]d
	}
	authorize {
		yubikey
	}
	authenticate {
		Auth-Type yubikey {
			yubikey
		}
	}
}
`, dir, port, tcp, apiKey64, h.server.URL)), 0o600))
	posterntest.Serve(t, tcp, radius, "-f", "-l", "stdout", "-d", dir, "-D", "/usr/share/freeradius")
	login := func(code string) string {
		out, _ := run(t, fmt.Sprintf("User-Name = alice\nUser-Password = %s\n", code), radclient, "-x", "-r", "1",
			"-t", "20", fmt.Sprintf("127.0.0.1:%d", port), "auth", "testing123")
		switch {
		case strings.Contains(out, "Received Access-Accept"):
			return "accept"
		case strings.Contains(out, "Received Access-Reject"):
			return "reject"
		}
		return out
	}
	code := touch(t, tok)
	for _, c := range []struct{ name, code, want string }{
		{"a good code", code, "accept"},
		{"the same again", code, "reject"},
		{"a bad code", flip(touch(t, tok)), "reject"},
		{"the next", touch(t, tok), "accept"},
	} {
		if got := login(c.code); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// TestModAuthnYubikey runs Apache's module, which knows one server only: the
// host api.yubico.com over plain HTTP. So Apache, curl and a server of ours on
// port 80 share a network of their own, where that name is theirs.
func TestModAuthnYubikey(t *testing.T) {
	posterntest.NeedRoot(t)
	unshare := posterntest.Need(t, "unshare")
	for _, p := range []string{"apache2", "curl", "ip"} {
		posterntest.Need(t, p)
	}
	const module = "/usr/lib/apache2/modules/mod_authn_yubikey.so"
	if _, err := os.Stat(module); err != nil {
		posterntest.Missing(t, "needs libapache2-mod-authn-yubikey")
	}
	dir := t.TempDir()
	url := filepath.Join(dir, "postern.db")
	h := newRig(t, store.Config{URL: url}, otp.Config{})
	for _, id := range []int64{1, 16} {
		must(t, h.otp.AddClient(t.Context(), &otp.APIClient{ID: id}))
	}
	tok := h.token(t, "")
	users := filepath.Join(dir, "users")
	both := sha1.Sum([]byte("alice:secret")) // what htpasswd -s makes of the two
	must(t, os.WriteFile(users, []byte(tok.PublicID+":{SHA}"+base64.StdEncoding.EncodeToString(both[:])+"\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 localhost api.yubico.com\n"), 0o644))
	must(t, os.MkdirAll(filepath.Join(dir, "www"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "seen"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "seen"), 0o777)) // where the module keeps who is in
	must(t, os.WriteFile(filepath.Join(dir, "www", "index.html"), []byte("inside\n"), 0o644))
	for _, d := range []string{dir, filepath.Dir(dir)} {
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "apache.conf"), []byte(fmt.Sprintf(`ServerRoot %[1]s
PidFile %[1]s/apache.pid
DefaultRuntimeDir %[1]s
ErrorLog %[1]s/error.log
ServerName localhost
User www-data
Group www-data
Listen 127.0.0.1:8080
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule auth_basic_module /usr/lib/apache2/modules/mod_auth_basic.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule authn_yubikey_module %[2]s
DocumentRoot %[1]s/www
<Directory %[1]s/www>
	AuthType Basic
	AuthName test
	AuthBasicProvider yubikey
	AuthYubiKeyTimeout 1
	AuthYubiKeyTmpFile %[1]s/seen/tmp.db
	AuthYubiKeyUserFile %[3]s
	AuthYubiKeyRequireSecure Off
	Require valid-user
</Directory>
`, dir, module, users)), 0o644))
	script := `set -e
mount --bind "$1/hosts" /etc/hosts
ip link set lo up
ip addr add 127.0.0.1/8 dev lo 2>/dev/null || true
` + serverURL + `="$1/postern.db" ` + serverAddr + `=127.0.0.1:80 "$2" >/dev/null 2>"$1/server.log" &
apache2 -X -f "$1/apache.conf" >"$1/apache.log" 2>&1 &
for i in $(seq 100); do
	curl -s -o /dev/null http://127.0.0.1:8080/ && curl -s -o /dev/null http://127.0.0.1/ && break
	sleep 0.1
done
shift 2
for code in "$@"; do
	curl -s -o /dev/null -w '%{http_code}\n' -u "alice:secret$code" http://127.0.0.1:8080/
done
`
	code := touch(t, tok)
	out, _ := run(t, "", unshare, "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", dir,
		os.Args[0], code, flip(touch(t, tok)), touch(t, tok))
	if want := "200\n401\n200\n"; out != want {
		errors, _ := os.ReadFile(filepath.Join(dir, "error.log"))
		t.Errorf("got\n%swant\n%s%s", out, want, errors)
	}
}

// TestReferenceServersOwnSteps asks what yubikey-val's self-test asks, in its
// order, with its key.
func TestReferenceServersOwnSteps(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	im, err := otp.ReadImport(strings.NewReader("1,1,1383728711,EHmo8FMxuhumBlTinC4uYL0Mgwg=,,,\n"+
		"0,idkfefrdhtru,609963eae7b5,c68c9df8cbfe7d2f994cb904046c7218,000000000000,,\n"), otp.ImportOptions{})
	must(t, err)
	must(t, h.otp.Import(t.Context(), im, false))
	const code = "idkfefrdhtrutjduvtcjbfeuvhehdvjjlbchtlenfgku"
	for _, step := range []struct {
		id, otp, nonce string
		want           otp.Status
	}{
		{"1", code, "kakakakakakakakakakakaka", otp.StatusOK},
		{"2", code, "kakakakakakakakakakakaka", otp.StatusNoSuchClient},
		{"1", code, "kakakakakakakakakakakaka", otp.StatusReplayedRequest},
		{"1", code, "bakabakabakabaka", otp.StatusReplayedOTP},
		{"1", flip(code), "bakabakabakabaka", otp.StatusBadOTP},
		{"1", "c" + code[1:], "bakabakabakabaka", otp.StatusBadOTP},
	} {
		got := h.ask(t, "/wsapi/2.0/verify", query("id", step.id, "otp", step.otp, "nonce", step.nonce, "timestamp",
			"1"))
		if otp.Status(got["status"]) != step.want {
			t.Errorf("%+v is answered %s", step, got["status"])
		}
		if step.want == otp.StatusOK && (got["sessioncounter"] != "1" || got["sessionuse"] != "0" ||
			got["timestamp"] != fmt.Sprint(0x0f8d40)) {
			t.Errorf("the counters are %v", got)
		}
	}
	keys, err := h.otp.Keys(t.Context(), "")
	must(t, err)
	var b strings.Builder
	must(t, otp.WriteVal(&b, keys))
	if !strings.Contains(b.String(), ",idkfefrdhtru,1,0,36160,15,kakakakakakakakakakakaka,") ||
		strings.Count(b.String(), "\n") != 1 {
		t.Errorf("the export is %q", b.String())
	}
}
