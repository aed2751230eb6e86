package otp

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
)

// Text returns the number and the key of an API client as two lines, which
// ParseAPIKey reads: "id 2", "key EHmo8FMxuhumBlTinC4uYL0Mgwg=". A client without
// a key has the first line only.
func (c *APIClient) Text() string {
	text := fmt.Sprintf("id %d\n", c.ID)
	if len(c.Secret) > 0 {
		text += "key " + base64.StdEncoding.EncodeToString(c.Secret) + "\n"
	}
	return text
}

// ParseAPIKey reads an API client's key from a file: what APIClient.Text returns,
// or the key alone, in base64, on the first line. The number is 0 if it is not in
// the file.
func ParseAPIKey(text []byte) (id int64, key []byte, err error) {
	fields := strings.Fields(string(text))
	switch {
	case len(fields) == 4 && fields[0] == "id" && fields[2] == "key":
		if id, err = strconv.ParseInt(fields[1], 10, 64); err == nil {
			key, err = base64.StdEncoding.DecodeString(fields[3])
		}
	case len(fields) > 0:
		key, err = base64.StdEncoding.DecodeString(fields[0])
	}
	if err != nil || len(key) == 0 || id < 0 {
		return 0, nil, postern.Errorf(postern.Invalid, "there is no API key in base64")
	}
	return id, key, nil
}

// TakeKey takes the key, and unless it is known the number, that [ParseAPIKey] reads.
// It fails with [postern.Invalid] if there is no number, or the key is another one's.
func (c *ClientConfig) TakeKey(text []byte) error {
	id, key, err := ParseAPIKey(text)
	switch {
	case err != nil:
		return err
	case c.ID == 0 && id == 0:
		return postern.Errorf(postern.Invalid, "there is no number of an API client").
			WithHint("give the API client's number")
	case c.ID != 0 && id != 0 && id != c.ID:
		return postern.Errorf(postern.Invalid, "it is the key of the API client %d, not %d", id, c.ID)
	case c.ID == 0:
		c.ID = id
	}
	c.Key = key
	return nil
}
