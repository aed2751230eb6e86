package debuginfod

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// program compiles a program and returns its debug file, which is in a directory of its
// own, and its build-id.
func program(t *testing.T) (debug, id string) {
	t.Helper()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	debug = filepath.Join(dir, "debug", "p.debug")
	text := "static int hidden(int n) { return n * 3; }\nint main(int argc, char **argv) { return hidden(argc); }\n"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(debug), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(posterntest.Need(t, name), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	run("gcc", "-g", "-O0", "-Wl,--build-id", "-o", binary, source)
	run("objcopy", "--only-keep-debug", binary, debug)
	return debug, regexp.MustCompile(`Build ID: ([0-9a-f]+)`).FindStringSubmatch(run("readelf", "-n", binary))[1]
}

// serve starts debuginfod on a directory and returns its address.
func serve(t *testing.T, dir, id string) string {
	t.Helper()
	port := posterntest.FreePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	cmd := exec.Command(posterntest.Need(t, "debuginfod"), "-d", ":memory:", "-p", fmt.Sprint(port), "-F", dir)
	cmd.Env = append(os.Environ(), "DEBUGINFOD_URLS=", "HOME="+t.TempDir())
	posterntest.Start(t, cmd, func() bool {
		resp, err := http.Get(url + "/buildid/" + id + "/debuginfo")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return url
}

// TestFromAServer gets a file from a real debuginfod, once.
func TestFromAServer(t *testing.T) {
	debug, id := program(t)
	var fetched []string
	c := &Client{
		URLs: []string{serve(t, filepath.Dir(debug), id)}, Cache: filepath.Join(t.TempDir(), "cache"),
		Fetching: func(url string) { fetched = append(fetched, url) }, Unavailable: func(err error) { t.Error(err) },
	}
	for range 2 {
		file, err := c.DebugFile(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		want, werr := os.ReadFile(debug)
		if err != nil || werr != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, not the file's %d: %v %v", len(got), len(want), err, werr)
		}
		if file != filepath.Join(c.Cache, id, "debuginfo") {
			t.Errorf("it is at %s", file)
		}
	}
	if len(fetched) != 1 {
		t.Errorf("fetched %q", fetched)
	}
	if _, err := c.DebugFile(t.Context(), strings.Repeat("ab", 20)); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("what it does not have: %v", err)
	}
}

// TestServersThatFail asks the next server, and the one that failed not again.
func TestServersThatFail(t *testing.T) {
	asked := map[string]int{}
	handle := func(name string, answer http.HandlerFunc) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[name]++
			answer(w, r)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	var complaints []error
	c := &Client{
		URLs: []string{
			handle("broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
			handle("cut", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write([]byte("short"))
			}),
			handle("good", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.Path)) }),
		},
		Cache: t.TempDir(), Unavailable: func(err error) { complaints = append(complaints, err) },
	}
	for _, id := range []string{"aabbccdd", "eeff0011"} {
		file, err := c.DebugFile(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "/buildid/"+id+"/debuginfo" {
			t.Errorf("%q, %v", b, err)
		}
		if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
			t.Errorf("%v, %v is left beside it", left, err)
		}
	}
	if len(complaints) != 2 || asked["broken"] != 1 || asked["cut"] != 1 || asked["good"] != 2 {
		t.Errorf("%v of %v", complaints, asked)
	}
}

func TestNoBuildID(t *testing.T) {
	c := &Client{URLs: []string{"http://127.0.0.1:1"}, Cache: t.TempDir()}
	for _, id := range []string{"", "..", "../../etc/passwd", "abc", "ABCD", "aabb/../x"} {
		if _, err := c.DebugFile(t.Context(), id); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestTheEnvironment(t *testing.T) {
	t.Setenv("DEBUGINFOD_URLS", "")
	if c := FromEnvironment(); c != nil {
		t.Errorf("a client of no server: %+v", c)
	}
	t.Setenv("DEBUGINFOD_URLS", " https://a.example/ https://b.example")
	t.Setenv("XDG_CACHE_HOME", "/xdg")
	t.Setenv("DEBUGINFOD_CACHE_PATH", "")
	if c := FromEnvironment(); len(c.URLs) != 2 || c.Cache != "/xdg/debuginfod_client" {
		t.Errorf("%+v", c)
	}
	t.Setenv("DEBUGINFOD_CACHE_PATH", "/own")
	if c := FromEnvironment(); c.Cache != "/own" {
		t.Errorf("%+v", c)
	}
}
