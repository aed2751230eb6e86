package shell

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// YubiCloud is where the script of old asked, in the protocol's present form.
const YubiCloud = "https://api.yubico.com/wsapi/2.0/verify"

// ValidateUnsigned asks a validation service about a code without a key to
// check the answer with, as the script of old did: TLS alone vouches for it.
// The answer must carry the code and the nonce of the question. It is for hosts
// whose /etc/yubikey_shell gives an identifier and no key.
func ValidateUnsigned(ctx context.Context, service string, id int64, code string) error {
	if service == "" {
		service = YubiCloud
	}
	u, err := url.Parse(service)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && sshd.OnThisHost(u.Hostname())) {
		return postern.Errorf(postern.Invalid, "%q is not the https URL of a validation service", service)
	}
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	nonce := hex.EncodeToString(raw)
	u.RawQuery = url.Values{"id": {strconv.FormatInt(id, 10)}, "otp": {code}, "nonce": {nonce}}.Encode()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return postern.Errorf(postern.Invalid, "the validation service's URL is not right")
	}
	// No proxy: the environment is the client's to set.
	client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		// the error would hold the code
		return postern.Errorf(postern.Unavailable, "the validation service at %s does not answer", u.Host)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<14))
	if err != nil || resp.StatusCode != http.StatusOK {
		return postern.Errorf(postern.Unavailable, "the validation service at %s does not answer", u.Host)
	}
	answer := map[string]string{}
	for line := range strings.Lines(string(body)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		answer[key] = value
	}
	switch {
	case answer["status"] != "OK":
		return postern.Errorf(postern.Denied, "the validation service says no")
	case answer["nonce"] != nonce, !strings.EqualFold(answer["otp"], code):
		return postern.Errorf(postern.Denied, "the validation service answered another question")
	}
	return nil
}
