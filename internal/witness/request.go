package witness

import (
	"fmt"
	"strings"

	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/tlog"
)

// Path is where a witness takes checkpoints, below its URL.
const Path = "/add-checkpoint"

// The bounds of what is sent.
const (
	maxRequest = 32 << 10 // bytes
	maxAnswer  = 16 << 10
	maxProof   = 63 // hashes
)

// sizeType is the content type of an answer with the size that a witness cosigned.
const sizeType = "text/x.tlog.size"

// request is the body of add-checkpoint.
type request struct {
	older  int64 // the size that the witness cosigned last
	proof  tlog.TreeProof
	signed string // the checkpoint
}

func (r request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", r.older)
	for _, h := range r.proof {
		fmt.Fprintln(&b, h)
	}
	return b.String() + "\n" + r.signed
}

// parseRequest reads what String writes.
func parseRequest(body string) (r request, err error) {
	if len(body) > maxRequest {
		return r, fmt.Errorf("longer than %d bytes", maxRequest)
	}
	head, signed, ok := strings.Cut(body, "\n\n")
	first, rest, more := strings.Cut(head, "\n")
	size, old := strings.CutPrefix(first, "old ")
	if !ok || !old {
		return r, fmt.Errorf("not a size, a proof, an empty line and a checkpoint")
	}
	if r.older, err = timeline.ParseSize(size); err != nil {
		return r, err
	}
	var lines []string
	if more {
		lines = strings.Split(rest, "\n")
	}
	if len(lines) > maxProof {
		return r, fmt.Errorf("a proof of more than %d hashes", maxProof)
	}
	for _, line := range lines {
		h, err := timeline.ParseHash(line)
		if err != nil {
			return r, err
		}
		r.proof = append(r.proof, h)
	}
	r.signed = signed
	return r, nil
}
