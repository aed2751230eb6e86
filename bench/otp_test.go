package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

// One-time passwords checked a second, each durable before its answer: Postern's
// validation service over SQLite and PostgreSQL, and yubiserver, which Debian has. The
// same clients use them one after the other over HTTP, in one run. Answers are counted
// if they have the code and nonce that were sent, as every client checks; yubiserver's
// are all counted, since it mixes answers up as soon as there are two clients.
//
//	go test -run '^$' -bench OTP -benchtime 1x ./bench

const otpAPIKey = "abcdefghijklmnopqrst"

var (
	otpClients = []int{1, 16, 64}
	otpKeys    = []int{1, 100, 10_000}
)

const (
	otpRound    = 3 * time.Second // for each row
	misdirected = "OK to another" // an answer that every client must disbelieve
)

func BenchmarkOTPValidations(b *testing.B) {
	for b.Loop() {
		rates := map[string]float64{}
		for _, keys := range otpKeys {
			tokens := newTokens(keys)
			for _, server := range []struct {
				name  string
				start func(*testing.B, []*benchToken) string
			}{
				{"yubiserver", startYubiserver},
				{"SQLite", func(b *testing.B, t []*benchToken) string {
					return startPostern(b, filepath.Join(b.TempDir(), "postern.db"), t)
				}},
				{"PostgreSQL", func(b *testing.B, t []*benchToken) string {
					return startPostern(b, posterntest.StartPostgreSQL(b).Database(), t)
				}},
			} {
				address := server.start(b, tokens)
				for _, clients := range otpClients {
					r := load(b, address, tokens, clients, otpRound)
					rates[fmt.Sprintf("%s %d %d", server.name, keys, clients)] = r.rate()
					if server.name == "yubiserver" {
						// To its favour: as if all it says OK to were good.
						rates[fmt.Sprintf("%s %d %d", server.name, keys, clients)] += float64(
							r.statuses[misdirected]) / r.took.Seconds()
					}
					fmt.Printf("%-10s  %6d keys  %2d clients  %7.0f OK/s  p50 %8s  p99 %8s  other answers %d %v\n",
						server.name, keys, clients, r.rate(), r.percentile(50), r.percentile(99), r.others(),
						r.statuses)
				}
			}
		}
		for _, name := range []string{"SQLite", "PostgreSQL"} {
			ratio := rates[name+" 10000 16"] / rates["yubiserver 10000 16"]
			b.ReportMetric(ratio, name+"/yubiserver")
			fmt.Printf("%s answers %.1f times what yubiserver does, with 16 clients and 10000 keys\n", name, ratio)
		}
	}
}

// benchToken is a software token that many clients touch.
type benchToken struct {
	mu sync.Mutex
	*otp.SoftToken
}

func newTokens(n int) []*benchToken {
	tokens := make([]*benchToken, n)
	for i := range tokens {
		tokens[i] = &benchToken{SoftToken: otp.NewSoftToken()}
	}
	return tokens
}

// touch returns the next code.
func (t *benchToken) touch() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.Touch(time.Now())
	if err != nil {
		panic(err)
	}
	return c.Modhex()
}

func startYubiserver(b *testing.B, tokens []*benchToken) string {
	keys := make([]posterntest.YubiserverKey, len(tokens))
	for i, t := range tokens {
		keys[i] = posterntest.YubiserverKey{
			PublicID: t.PublicID, PrivateID: t.Secret.PrivateID[:],
			AES: t.Secret.Key[:],
		}
	}
	port := posterntest.FreePort(b)
	posterntest.Yubiserver(b, port, otpAPIKey, keys)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func startPostern(b *testing.B, url string, tokens []*benchToken) string {
	addKeys(b, storetest.OpenConfig(b, store.Config{URL: url}).OTP(), tokens)
	return serveCodes(b, url)
}

func addKeys(b *testing.B, keys *store.OTP, tokens []*benchToken) {
	ctx := context.Background()
	must(b, keys.AddClient(ctx, &otp.APIClient{ID: 1, Secret: []byte(otpAPIKey)}))
	for chunk := range slices.Chunk(tokens, 1000) {
		var add []*otp.Key
		for _, t := range chunk {
			add = append(add, &otp.Key{PublicID: t.PublicID, Secret: &t.Secret, Last: otp.Never})
		}
		must(b, keys.AddKeys(ctx, postern.Actor{}, add, false))
	}
}

// serveCodes starts a server on a database and returns its address.
func serveCodes(b *testing.B, url string) string {
	db := storetest.OpenConfig(b, store.Config{URL: url})
	service, err := otp.NewService(otp.Config{}, db.OTP(), db)
	must(b, err)
	server := httptest.NewServer(service)
	b.Cleanup(func() { server.Close(); service.Close() })
	return strings.TrimPrefix(server.URL, "http://")
}

// otpResult is what a load was answered with.
type otpResult struct {
	statuses map[string]int
	times    []time.Duration // of OK answers, sorted
	took     time.Duration
}

func (r otpResult) rate() float64 { return float64(r.statuses["OK"]) / r.took.Seconds() }

func (r otpResult) others() (n int) {
	for s, c := range r.statuses {
		if s != "OK" {
			n += c
		}
	}
	return n
}

func (r otpResult) percentile(p int) time.Duration {
	if len(r.times) == 0 {
		return 0
	}
	return r.times[(len(r.times)-1)*p/100].Round(10 * time.Microsecond)
}

// load has so many clients ask at the same time, each as fast as it is
// answered, every time with a fresh code of the next key.
func load(b *testing.B, address string, tokens []*benchToken, clients int, d time.Duration) otpResult {
	r := otpResult{statuses: map[string]int{}}
	var mu sync.Mutex
	var next int
	var wg sync.WaitGroup
	start := time.Now()
	for range clients {
		wg.Go(func() {
			c := &benchClient{address: address}
			defer c.close()
			statuses := map[string]int{}
			var times []time.Duration
			for time.Since(start) < d {
				mu.Lock()
				t := tokens[next%len(tokens)]
				next++
				mu.Unlock()
				began := time.Now()
				status, err := c.verify(t.touch())
				if err != nil {
					status = "error"
				}
				statuses[status]++
				if status == "OK" {
					times = append(times, time.Since(began))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for s, n := range statuses {
				r.statuses[s] += n
			}
			r.times = append(r.times, times...)
		})
	}
	wg.Wait()
	r.took = time.Since(start)
	slices.Sort(r.times)
	return r
}

// benchClient asks over one connection as long as the server keeps it.
type benchClient struct {
	address string
	conn    net.Conn
	r       *bufio.Reader
	asked   int
}

func (c *benchClient) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *benchClient) verify(code string) (string, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return "", err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
	}
	c.asked++
	nonce := fmt.Sprintf("%s%08d", code[len(code)-16:], c.asked)
	if _, err := fmt.Fprintf(c.conn, "GET /wsapi/2.0/verify?id=1&nonce=%s&otp=%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
		nonce, code); err != nil {
		c.close()
		return "", err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.close()
		return "", err
	}
	defer resp.Body.Close()
	answer := map[string]string{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		answer[name] = value
	}
	status := answer["status"]
	if status == "OK" && (answer["otp"] != code || answer["nonce"] != nonce) {
		status = misdirected
	}
	if resp.Close || resp.ContentLength < 0 {
		c.close()
	}
	return status, lines.Err()
}

// BenchmarkOTPAtADistance measures codes a second with 64 clients a server, of a server
// beside its PostgreSQL server, of one whose packets take 2 ms each way, and of two of
// these.
func BenchmarkOTPAtADistance(b *testing.B) {
	const clients, delay = 64, 2 * time.Millisecond
	for b.Loop() {
		pg := posterntest.StartPostgreSQL(b)
		url := pg.Database()
		tokens := newTokens(10_000)
		near := load(b, startPostern(b, url, tokens), tokens, clients, otpRound).rate()
		var far []string
		for range 2 {
			distant, _ := pg.Distant(b, url, delay)
			far = append(far, serveCodes(b, distant))
		}
		one := load(b, far[0], tokens, clients, otpRound).rate()
		rates := make([]float64, len(far))
		var wg sync.WaitGroup
		for i, address := range far {
			half := tokens[i*len(tokens)/len(far) : (i+1)*len(tokens)/len(far)]
			wg.Go(func() { rates[i] = load(b, address, half, clients, otpRound).rate() })
		}
		wg.Wait()
		both := rates[0] + rates[1]
		fmt.Printf("PostgreSQL, %d clients a server: beside it %.0f OK/s, %v away %.0f, two servers %.0f\n",
			clients, near, delay, one, both)
		b.ReportMetric(one/near, "away/beside")
		b.ReportMetric(both/one, "two/one")
	}
}

// BenchmarkOTPMillionKeys measures how long a check takes with a thousand and
// with a million keys in the store, each code of a key that was not used lately.
func BenchmarkOTPMillionKeys(b *testing.B) {
	for b.Loop() {
		for _, name := range []string{"SQLite", "PostgreSQL"} {
			var medians []time.Duration
			for _, keys := range []int{1000, 1_000_000} {
				url, settle := filepath.Join(b.TempDir(), "postern.db"), func() {}
				if name == "PostgreSQL" {
					pg := posterntest.StartPostgreSQL(b)
					url = pg.Database()
					settle = func() { // what it would do by itself in the minutes after
						pg.Exec(url, "VACUUM ANALYZE")
						pg.Exec(url, "CHECKPOINT")
					}
				}
				tokens := newTokens(1000)
				address := startPostern(b, url, tokens)
				fillKeys(b, url, keys-len(tokens))
				settle()
				r := load(b, address, tokens, 1, otpRound)
				fmt.Printf("%-10s  %7d keys   1 client   %7.0f OK/s  p50 %8s  p99 %8s\n", name, keys, r.rate(),
					r.percentile(50), r.percentile(99))
				medians = append(medians, r.percentile(50))
			}
			b.ReportMetric(float64(medians[1])/float64(medians[0]), name+"-slowdown")
		}
	}
}

// fillKeys adds keys that are not used, without entries of the timeline.
func fillKeys(b *testing.B, url string, n int) {
	db := storetest.OpenConfig(b, store.Config{URL: url})
	for n > 0 {
		var ids, secrets []any
		for ; n > 0 && len(ids) < 100; n-- {
			id := otp.EncodeModhex([]byte{0xfe, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)})
			sealed, err := db.Seal("otp key", id, make([]byte, 22))
			must(b, err)
			ids, secrets = append(ids, id), append(secrets, id, sealed)
		}
		// values repeats a row for each key; {0} and {1} are its own arguments.
		values := func(row string, each int) string {
			rows := make([]string, len(ids))
			for i := range rows {
				rows[i] = strings.NewReplacer("{0}", fmt.Sprintf("$%d", each*i+1), "{1}",
					fmt.Sprintf("$%d", each*i+2)).Replace(row)
			}
			return strings.Join(rows, ", ")
		}
		must(b, db.Write(b.Context(), func(ctx context.Context, tx *store.Tx) error {
			for _, s := range []struct {
				sql  string
				args []any
			}{
				{"INSERT INTO credentials (kind, id, person, label, status, created, expires, last_used) VALUES " +
					values("('yubikey', {0}, NULL, '', 'active', 1, 0, 0)", 1), ids},
				{"INSERT INTO otp_counters (public_id, seq, stamp, nonce, used) VALUES " +
					values("({0}, -1, 0, '', 0)", 1), ids},
				{"INSERT INTO otp_keys (public_id, sealed, serial) VALUES " + values("({0}, {1}, 0)", 2), secrets},
			} {
				if _, err := tx.Exec(ctx, s.sql, s.args...); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}
