// Package debuginfod gets debug files by build-id from debuginfod servers, as gdb does: those
// that DEBUGINFOD_URLS names, with the cache that other clients of the same person use.
// See debuginfod(8) and debuginfod-client-config(7).
package debuginfod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// Client asks debuginfod servers. It is safe for concurrent use.
type Client struct {
	URLs  []string // of servers, in the order in which they are asked
	Cache string   // a directory, which is made when it is needed
	// Fetching is told what is fetched from where, before; nil for none.
	Fetching func(url string)
	// Unavailable is told why a server is not asked any more; nil for none.
	Unavailable func(err error)

	mu   sync.Mutex
	down map[string]bool // servers that did not answer
}

const (
	// patience is how long a file may take.
	patience = 5 * time.Minute
	// maxFile bounds a file: that of libvirt's library has some 20 MB.
	maxFile = 1 << 30
)

// FromEnvironment returns a client of the servers that DEBUGINFOD_URLS names, or nil if it
// names none.
func FromEnvironment() *Client {
	urls := strings.Fields(os.Getenv("DEBUGINFOD_URLS"))
	if len(urls) == 0 {
		return nil
	}
	dir := os.Getenv("DEBUGINFOD_CACHE_PATH")
	if dir == "" {
		if cache, err := os.UserCacheDir(); err == nil {
			dir = filepath.Join(cache, "debuginfod_client")
		}
	}
	return &Client{URLs: urls, Cache: dir}
}

// identifier is what a build-id looks like: it becomes a part of a path.
var identifier = regexp.MustCompile(`^[0-9a-f]{4,128}$`)

// Cached returns the path at which the debug file of a build-id is once it was fetched.
func (c *Client) Cached(id string) string { return filepath.Join(c.Cache, id, "debuginfo") }

// DebugFile returns the path of the debug file of a build-id in hexadecimal, and fetches it
// if it is not in the cache. The error is NotFound if no server has it.
func (c *Client) DebugFile(ctx context.Context, id string) (string, error) {
	if !identifier.MatchString(id) {
		return "", postern.Errorf(postern.Invalid, "%q is no build-id", id)
	}
	if c.Cache == "" {
		return "", postern.Errorf(postern.Invalid, "there is no directory for debug files").
			WithHint("name it in DEBUGINFOD_CACHE_PATH")
	}
	file := c.Cached(id)
	if fi, err := os.Stat(file); err == nil && fi.Size() > 0 { // an empty one says that there was none
		return file, nil
	}
	for _, server := range c.URLs {
		url := strings.TrimRight(server, "/") + "/buildid/" + id + "/debuginfo"
		switch found, err := c.fetch(ctx, url, file); {
		case err != nil:
			c.unavailable(server, err)
		case found:
			return file, nil
		}
	}
	return "", postern.Errorf(postern.NotFound, "no server has debug information of %s", id)
}

// unavailable remembers that a server is not to be asked again.
func (c *Client) unavailable(server string, err error) {
	c.mu.Lock()
	known := c.down[server]
	if c.down == nil {
		c.down = map[string]bool{}
	}
	c.down[server] = true
	c.mu.Unlock()
	if !known && c.Unavailable != nil {
		c.Unavailable(err)
	}
}

func (c *Client) isDown(url string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for server := range c.down {
		if strings.HasPrefix(url, strings.TrimRight(server, "/")+"/") {
			return true
		}
	}
	return false
}

// fetch fetches a file. A server that does not have it is no error.
func (c *Client) fetch(ctx context.Context, url, file string) (found bool, err error) {
	if c.isDown(url) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	if c.Fetching != nil {
		c.Fetching(url)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return false, nil
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return true, store(file, io.LimitReader(resp.Body, maxFile+1))
}

// store writes a file in one step.
func store(file string, r io.Reader) (err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "debuginfo.")
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	if err == nil && n > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", file, maxFile)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
