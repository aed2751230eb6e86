package apache

import (
	"errors"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	files := func(name string) (string, error) {
		if name == "/etc/who" {
			return "dan", nil
		}
		return "", errors.New("no such file")
	}
	for _, c := range []struct {
		d         dialect
		in        string
		want      string
		unmatched int
	}{
		// SSLRequire
		{sslRequire, `%{SSL_CLIENT_S_DN_CN} eq "dan"`, `cert.subject.cn == "dan"`, 0},
		{sslRequire, `"dan" == %{SSL_CLIENT_S_DN_CN}`, `cert.subject.cn == "dan"`, 0},
		{sslRequire, `%{SSL_CLIENT_S_DN_OU} ne "x"`, `size(cert.subject.ou) == 0 || cert.subject.ou != "x"`, 0},
		{
			sslRequire, `not (%{SSL_CLIENT_S_DN_CN} eq "a" or %{SSL_CLIENT_I_DN_O} eq "b")`,
			`(size(cert.subject.cn) == 0 || cert.subject.cn != "a") && ` +
				`(size(cert.issuer.o) == 0 || cert.issuer.o != "b")`, 0,
		},
		{sslRequire, `%{SSL_CLIENT_S_DN_Email} eq ""`, `size(cert.subject.email) == 0`, 0},
		{
			sslRequire, `%{SSL_CLIENT_S_DN_OU_1} eq "x"`,
			`(size(cert.subject.ou) > 1 ? cert.subject.ou[1] : "") == "x"`,
			0,
		},
		{
			sslRequire, `%{SSL_CLIENT_SAN_Email_0} eq "a@b"`,
			`(size(cert.san.email) > 0 ? cert.san.email[0] : "") == "a@b"`, 0,
		},
		{
			sslRequire, `%{SSL_CLIENT_S_DN_CN} in {"a", "b"}`,
			`size(cert.subject.cn) == 1 && cert.subject.cn[0] in ["a", "b"]`, 0,
		},
		{
			sslRequire, `! %{SSL_CLIENT_S_DN_CN} in {"a"}`,
			`size(cert.subject.cn) == 1 && !(cert.subject.cn[0] in ["a"])`, 0,
		},
		{sslRequire, `%{SSL_CLIENT_S_DN_CN} =~ m/^dan\./i`, `cert.subject.cn.matches("(?i)^dan\\.")`, 0},
		{
			sslRequire, `%{SSL_CLIENT_S_DN_CN} !~ m#a{2}#`,
			`size(cert.subject.cn) == 0 || !cert.subject.cn.matches("a\u007b2\u007d")`, 0,
		},
		{sslRequire, `"admin" in PeerExtList("1.2.3.4")`, `"admin" in cert.extension("1.2.3.4")`, 0},
		{sslRequire, `%{SSL_CLIENT_M_SERIAL} eq "00AB"`, `cert.serial == "ab"`, 0},
		{
			sslRequire, `%{SSL_CLIENT_VERIFY} eq "SUCCESS" and %{SSL_CLIENT_S_DN_CN} eq file("/etc/who")`,
			`cert.subject.cn == "dan"`, 0,
		},
		{sslRequire, `%{SSL_CIPHER_USEKEYSIZE} >= 128`, `(tls.cipher.contains("AES_128") ? 128 : 256) >= 128`, 0},
		{
			sslRequire, `%{TIME_WDAY} >= 1 and %{TIME_WDAY} <= 5`,
			`(time.getDayOfWeek("UTC")) >= 1 && (time.getDayOfWeek("UTC")) <= 5`, 0,
		},
		{sslRequire, `%{REMOTE_ADDR} =~ m/^192\.0\.2\.[0-9]+$/`, `address.matches("^192\\.0\\.2\\.[0-9]+$")`, 0},
		{
			sslRequire, `%{HTTP_USER_AGENT} eq "x"`,
			`(!("user-agent" in request.headers) || size(request.headers["user-agent"]) == 1) && ` +
				`("user-agent" in request.headers ? request.headers["user-agent"][0] : "") == "x"`, 0,
		},
		{sslRequire, `true or %{NONSENSE} eq "x"`, `true`, 1},
		{sslRequire, "%{SSL_CLIENT_S_DN_CN} eq \"a`b\"", `cert.subject.cn == "a\u0060b"`, 0},
		// What has no match never holds, negated or not.
		{sslRequire, `%{NONSENSE} eq "x"`, `false`, 1},
		{sslRequire, `not %{NONSENSE} eq "x"`, `false`, 1},
		{sslRequire, `%{NONSENSE} eq "x" or %{SSL_CLIENT_S_DN_CN} eq "a"`, `cert.subject.cn == "a"`, 1},
		{
			sslRequire, `not (%{NONSENSE} eq "x" and %{SSL_CLIENT_S_DN_CN} eq "a")`,
			`size(cert.subject.cn) == 0 || cert.subject.cn != "a"`, 1,
		},
		{sslRequire, `%{SSL_CLIENT_S_DN_CN} eq file("/etc/none")`, `false`, 1},
		{sslRequire, `%{SSL_CLIENT_S_DN_CN} =~ m/(?=x)/`, `false`, 1},
		// Require expr: eq compares numbers there.
		{apExpr, `%{SSL_CLIENT_S_DN_CN} == 'dan'`, `cert.subject.cn == "dan"`, 0},
		{
			apExpr, `%{REQUEST_METHOD} in { 'GET', 'HEAD' } && -R '192.0.2.0/24'`,
			`request.method in ["GET", "HEAD"] && address.within("192.0.2.0/24")`, 0,
		},
		{apExpr, `%{TIME_HOUR} -ge 8`, `(time.getHours("UTC")) >= 8`, 0},
		{apExpr, `tolower(%{HTTP_HOST}) == "a"`, `request.host.lowerAscii() == "a"`, 0},
		{apExpr, `-n %{SSL_CLIENT_S_DN_O}`, `size(cert.subject.o) > 0`, 0},
		{apExpr, `-e '/etc/passwd'`, `false`, 1},
		{apExpr, `! -e '/etc/passwd'`, `false`, 1},
		{apExpr, `%{REMOTE_ADDR} -ipmatch '2001:db8::/32'`, `address.within("2001:db8::/32")`, 0},
		{apExpr, `%{REQUEST_URI} -strmatch '/a*'`, `request.path.matches("^/a.*$")`, 0},
		{
			apExpr, `'a' . %{SSL_CLIENT_S_DN_CN} == 'ab'`,
			`size(cert.subject.cn) == 1 && ("a" + cert.subject.cn[0]) == "ab"`, 0,
		},
	} {
		e, err := parseExpr(c.in, c.d)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got, reasons := (&vocabulary{dialect: c.d, file: files}).rule(e)
		if got != c.want || len(reasons) != c.unmatched {
			t.Errorf("%s\n got %s\nwant %s\nunmatched %q", c.in, got, c.want, reasons)
		}
	}
}

func TestExpressionsThatAreWrong(t *testing.T) {
	for _, in := range []string{
		``, `%{X}`, `%{X} eq`, `%{X eq "a"`, `"a" eq "b`, `("a" eq "b"`, `"a" eq "b") `, `"a" = "b"`, `"a" in {`,
		`"a" in {"b" "c"}`,
		`"a" in PeerExtList(%{X})`, `"a" =~ /x`, `"a" =~ m`, `"a" =~ m/x/q`, `bare eq "x"`, `%{} eq "x"`,
		strings.Repeat("(", 500),
		strings.Repeat("!", 500) + `"a" eq "a"`,
	} {
		if e, err := parseExpr(in, sslRequire); err == nil {
			t.Errorf("%q is read as %#v", in, e)
		}
	}
}

func FuzzExpr(f *testing.F) {
	for _, s := range []string{
		`%{SSL_CLIENT_S_DN_CN} eq "dan" and (%{TIME_HOUR} >= 8 or not "x" in PeerExtList("1.2"))`,
		`%{HTTP:X-Y} =~ m#a#i && -R '10.0.0.0/8' || tolower("a" . 'b') -strmatch 'a[!b]*?'`, `file("/x") != "\\\"{}"`,
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, ssl bool) {
		d := apExpr
		if ssl {
			d = sslRequire
		}
		e, err := parseExpr(s, d)
		if err != nil {
			return
		}
		cel, _ := (&vocabulary{dialect: d, file: func(string) (string, error) {
			return "", errors.New("none")
		}}).rule(e)
		if cel == "" || strings.ContainsAny(cel, "`") {
			t.Errorf("%q becomes %q", s, cel)
		}
	})
}
