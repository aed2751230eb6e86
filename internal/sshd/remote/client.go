package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// Client asks a server: it is a host's [sshd.Checker]. It is safe for concurrent use.
// When no server answers, its methods fail with [postern.Unavailable], when the server
// refuses the host, with [postern.Denied].
type Client struct {
	URL  string       // of the server, without a path
	HTTP *http.Client // shows the host's certificate, and follows no redirects
}

var _ sshd.Checker = Client{}

// CheckCode implements [sshd.Checker].
func (c Client) CheckCode(ctx context.Context, a sshd.Attempt) (sshd.Proof, error) {
	q := question{
		User: a.User, Service: a.Service, Address: a.Address, Code: a.Code, Password: a.Password, Digits: a.Digits,
	}
	if a.Event.Kind != "" {
		q.Event = &a.Event
	}
	return c.ask(ctx, codePath, q)
}

// CheckAccount implements [sshd.Checker].
func (c Client) CheckAccount(ctx context.Context, user string) (person string, err error) {
	p, err := c.ask(ctx, accountPath, question{User: user})
	return p.Person, err
}

// unanswered is the error without an answer. Its cause is not among its words, which
// may be shown to who logs in.
func unanswered(err error) error {
	return &postern.Error{
		Code: postern.Unavailable, Msg: "the code or account cannot be checked: the server does not answer", Err: err,
		Hint: "see that the server runs, and that this host reaches it",
	}
}

// ask puts one question.
func (c Client) ask(ctx context.Context, path string, q question) (sshd.Proof, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return sshd.Proof{}, err
	}
	defer clear(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return sshd.Proof{}, unanswered(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.HTTP.Do(req)
	if err != nil {
		return sshd.Proof{}, unanswered(err)
	}
	defer res.Body.Close()
	var a answer
	if err := decode(res.Body, maxMessage, &a); err != nil {
		return sshd.Proof{}, unanswered(err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return a.proof(len(q.Code))
	case http.StatusForbidden:
		return sshd.Proof{}, postern.Errorf(postern.Denied, "the server refuses this host: %.200s",
			sshd.Printable(a.Reason))
	case http.StatusBadRequest: // it answers: nothing else decides in its place
		return sshd.Proof{}, postern.Errorf(postern.Invalid, "the server takes no such question: %.200s",
			sshd.Printable(a.Reason))
	}
	return sshd.Proof{}, postern.Errorf(postern.Unavailable, "the server cannot answer: %.200s",
		sshd.Printable(a.Reason))
}
