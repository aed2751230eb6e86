package otp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// Sync configures synchronization with yubikey-val servers, by their protocol: each
// server sends every code that it accepts to the others. They authenticate each other by
// IP address only, so it is for trusted networks. Several Postern servers do not need
// it, since they share one database. The zero value synchronizes with none.
//
// See https://developers.yubico.com/yubikey-val/Server_Replication_Protocol.html
type Sync struct {
	Peers []string       `json:"peers,omitempty"` // URLs to send codes to, …/wsapi/2.0/sync
	Allow []netip.Prefix `json:"allow,omitempty"` // addresses to accept codes from
	// Timeout is how long a client waits for peers if it does not say; 0 means
	// one second.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Fast, Secure and Default are the percentages of peers that have to
	// agree, for sl=fast, sl=secure and without sl; 0 means 1, 40 and 60, as
	// yubikey-val has it.
	Fast    int `json:"fast,omitempty"`
	Secure  int `json:"secure,omitempty"`
	Default int `json:"default,omitempty"`
	// Resend is how often a peer that did not answer is tried again; 0 means
	// 30 seconds.
	Resend time.Duration `json:"resend,omitempty"`
	// Store has the queue of what is to be sent.
	Store Replicas `json:"-"`
}

// ParseNetworks reads IP addresses and networks, for Sync.Allow.
func ParseNetworks(list []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, text := range list {
		network, err := netip.ParsePrefix(text)
		if ip, ierr := netip.ParseAddr(text); ierr == nil {
			network, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "%q is neither an IP address nor a network", text).
				WithHint("for example: 192.0.2.12 or 192.0.2.0/24")
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// Replicas stores the counters that are exchanged with peers. [Keys.Accept] queues what
// is to be sent, see Use.Peers.
type Replicas interface {
	// Merge stores a counter that a peer has sent, durably, if it is later than the
	// stored one. It returns the previous one, and whether codes of the key are accepted
	// here; that is true also of a key that is not known.
	Merge(ctx context.Context, c Counter) (before Last, active bool, err error)
	// Unsynced returns the oldest uses that a peer has not confirmed, at most limit.
	Unsynced(ctx context.Context, peer string, limit int) ([]Counter, error)
	// Synced records that a peer has confirmed a use.
	Synced(ctx context.Context, peer string, c Counter) error
}

const maxPeers = 32

// SyncInfo is a synchronization as it is shown.
type SyncInfo struct {
	Peers   []string `json:"peers"`             // URLs that accepted codes are sent to
	Allowed []string `json:"allowed"`           // networks that may send theirs
	Timeout float64  `json:"timeout,omitempty"` // seconds
	Level   int      `json:"level,omitempty"`   // percent
}

// Info returns what is shown of it.
func (s Sync) Info() SyncInfo {
	allowed := make([]string, len(s.Allow))
	for i, p := range s.Allow {
		allowed[i] = p.String()
	}
	return SyncInfo{append([]string{}, s.Peers...), allowed, s.Timeout.Seconds(), s.Default}
}

// Validate reports what is wrong with the configuration.
func (s Sync) Validate() error {
	if len(s.Peers) > maxPeers {
		return postern.Errorf(postern.Invalid, "more than %d sync peers", maxPeers)
	}
	for _, p := range s.Peers {
		u, err := url.Parse(p)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" ||
			u.User != nil {
			return postern.Errorf(postern.Invalid, "%q is not the URL of a sync peer", p)
		}
	}
	for _, n := range []int{s.Fast, s.Secure, s.Default} {
		if n < 0 || n > 100 {
			return postern.Errorf(postern.Invalid, "a sync level is 0 to 100 percent")
		}
	}
	if s.Timeout < 0 || s.Resend < 0 {
		return postern.Errorf(postern.Invalid, "a negative sync timeout")
	}
	if s.Store == nil && len(s.Peers)+len(s.Allow) > 0 {
		return postern.Errorf(postern.Invalid, "sync needs a store")
	}
	return nil
}

// or returns a value, or its default if it is zero.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// level reads the parameters sl and timeout of a request.
func (s Sync) level(sl, timeout string) (percent int, wait time.Duration, ok bool) {
	switch strings.ToLower(sl) {
	case "":
		percent = or(s.Default, 60)
	case "fast":
		percent = or(s.Fast, 1)
	case "secure":
		percent = or(s.Secure, 40)
	default:
		var err error
		if percent, err = strconv.Atoi(sl); err != nil || percent < 0 || percent > 100 {
			return 0, 0, false
		}
	}
	if timeout == "" {
		return percent, or(s.Timeout, time.Second), true
	}
	n, err := strconv.Atoi(timeout)
	return percent, time.Duration(min(n, 60)) * time.Second, err == nil && n >= 0
}

// allows reports whether a peer at that address may send counters.
func (s Sync) allows(address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	for _, p := range s.Allow {
		if p.Contains(ip.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// syncer sends the codes that this server accepts to its peers.
type syncer struct {
	Sync
	http   *http.Client
	logger *slog.Logger
	ctx    context.Context // until the service is closed
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

func newSyncer(s Sync, logger *slog.Logger) *syncer {
	y := &syncer{Sync: s, logger: logger}
	y.ctx, y.stop = context.WithCancel(context.Background())
	y.http = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second}, // no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if len(s.Peers) > 0 {
		y.wg.Go(y.resend)
	}
	return y
}

func (y *syncer) close() {
	y.stop()
	y.wg.Wait()
	y.http.CloseIdleConnections()
}

// resend sends peers again what they have not confirmed, until the service closes.
func (y *syncer) resend() {
	tick := time.NewTicker(or(y.Resend, 30*time.Second))
	defer tick.Stop()
	for {
		for _, peer := range y.Peers {
			y.catchUp(peer)
		}
		select {
		case <-y.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// catchUp sends one peer what it has not confirmed, as long as it answers.
func (y *syncer) catchUp(peer string) {
	for {
		todo, err := y.Store.Unsynced(y.ctx, peer, 100)
		if err != nil || len(todo) == 0 {
			return
		}
		for _, c := range todo {
			ctx, cancel := context.WithTimeout(y.ctx, 10*time.Second)
			_, err := y.send(ctx, peer, c)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// send sends one peer a use, and returns whether the use is new to it. If the peer has a
// later use, that is stored here.
func (y *syncer) send(ctx context.Context, peer string, c Counter) (fresh bool, err error) {
	theirs, known, err := y.ask(ctx, peer, c)
	if err != nil {
		return false, err
	}
	if known && theirs.Seq >= 0 {
		if _, _, err := y.Store.Merge(ctx, Counter{PublicID: c.PublicID, Last: theirs}); err != nil {
			return false, err
		}
	}
	if err := y.Store.Synced(ctx, peer, c); err != nil {
		return false, err
	}
	return known && (theirs.Seq < c.Seq || theirs.Seq == c.Seq && theirs.Nonce == c.Nonce), nil
}

// ask sends a sync request and returns the peer's counter. known is false if the peer
// does not accept the key's codes.
func (y *syncer) ask(ctx context.Context, peer string, c Counter) (theirs Last, known bool, err error) {
	q := url.Values{}
	// The code itself, which the peer would only log, is not sent.
	q.Set("otp", c.PublicID+strings.Repeat("c", blockLetters))
	for _, kv := range counterParams(c) {
		q.Set(kv.name, kv.value)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peer+"?"+q.Encode(), nil)
	if err != nil {
		return theirs, false, err
	}
	resp, err := y.http.Do(req)
	if err != nil {
		return theirs, false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return theirs, false, err
	}
	lines, ok := parseAnswer(string(body))
	if status := Status(lines.lookup("status")); !ok || status != StatusOK {
		if ok && status == StatusBadOTP {
			return theirs, false, nil // the key is disabled or revoked there
		}
		return theirs, false, fmt.Errorf("sync peer %s answers %q", peer, status)
	}
	answer, ok := parseCounter(lines)
	if !ok || answer.PublicID != c.PublicID {
		return theirs, false, fmt.Errorf("sync peer %s sends a malformed answer", peer)
	}
	return answer.Last, true, nil
}

// counterParams returns a counter as parameters of the sync protocol.
func counterParams(c Counter) params {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	counter, use, high, low, modified, nonce := int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), c.Nonce
	if c.Seq >= 0 {
		counter, use, high, low = c.Seq>>8, c.Seq&0xff, int64(c.Timestamp>>16), int64(c.Timestamp&0xffff)
	}
	if !c.Time.IsZero() {
		modified = c.Time.Unix()
	}
	if nonce == "" {
		nonce = "0000000000000000"
	}
	return params{
		{"modified", n(modified)},
		{"nonce", nonce},
		{"yk_publicname", c.PublicID},
		{"yk_counter", n(counter)},
		{"yk_use", n(use)},
		{"yk_high", n(high)},
		{"yk_low", n(low)},
	}
}

// parseCounter reads a counter from parameters of the sync protocol.
func parseCounter(p params) (c Counter, ok bool) {
	var n [5]int64
	for i, name := range []string{"yk_counter", "yk_use", "yk_low", "yk_high", "modified"} {
		var err error
		if n[i], err = strconv.ParseInt(p.lookup(name), 10, 64); err != nil || n[i] < -1 {
			return c, false
		}
	}
	c.PublicID, c.Last = p.lookup("yk_publicname"), Never
	if !ValidPublicID(c.PublicID) || !validNonce(p.lookup("nonce")) || n[4] > 1<<40 {
		return c, false
	}
	if n[0] < 0 || n[1] < 0 {
		return c, n[0] == -1 && n[1] == -1
	}
	if c.Last, ok = lastOf(n[0], n[1], n[2], n[3]); !ok {
		return c, false
	}
	c.Nonce = p.lookup("nonce")
	if n[4] > 0 {
		c.Time = time.Unix(n[4], 0).UTC()
	}
	return c, true
}

// serveSync answers a peer that has accepted a code with the counter before, from which
// the peer sees whether the code was accepted here, too.
func (s *Service) serveSync(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.config.Timeout)
	defer cancel()
	lines := params{{"t", string(appendTime(nil, s.config.Now()))}}
	status, counter := s.merge(ctx, peer(r), r.URL.RawQuery)
	if counter != nil {
		lines = append(lines, counterParams(*counter)...)
	}
	lines = append(lines, param{"status", string(status)})
	var body []byte
	for _, kv := range lines {
		body = append(body, kv.name+"="+kv.value+"\r\n"...)
	}
	w.Header()["Content-Type"] = contentType
	w.Header()["Cache-Control"] = noStore
	_, _ = w.Write(append(body, "\r\n"...))
}

func (s *Service) merge(ctx context.Context, address, query string) (Status, *Counter) {
	if !s.config.Sync.allows(address) {
		s.log.Add(postern.Event{
			Time: s.config.Now(), Kind: postern.EventOTP, Outcome: postern.Refused, Address: address,
			Reason: "sync from an address that is not allowed", Details: map[string]string{"service": "sync"},
		})
		return StatusOperationNotAllowed, nil
	}
	p, ok := parseQuery(query)
	if _, isCode := ParseCode(p.lookup("otp")); !ok || !isCode {
		return StatusMissingParameter, nil
	}
	c, ok := parseCounter(p)
	if !ok {
		return StatusMissingParameter, nil
	}
	before, active, err := s.config.Sync.Store.Merge(ctx, c)
	if err != nil {
		s.config.Logger.Error("cannot store a peer's counter", postern.LogError, err)
		return StatusBackendError, nil
	}
	if !active {
		return StatusBadOTP, nil
	}
	return StatusOK, &Counter{PublicID: c.PublicID, Last: before}
}

// askPeers sends a code that was accepted here to the peers, and waits until as many of
// them confirm it as the client requested. The others are sent it all the same.
func (c *check) askPeers(use Use) Status {
	y := c.service.sync
	if len(y.Peers) == 0 {
		return ""
	}
	type answer struct {
		fresh bool
		err   error
	}
	answers := make(chan answer, len(y.Peers))
	for _, peer := range y.Peers {
		y.wg.Go(func() {
			ctx, cancel := context.WithTimeout(y.ctx, 10*time.Second)
			defer cancel()
			fresh, err := y.send(ctx, peer, Counter{PublicID: use.PublicID, Last: use.Last})
			answers <- answer{fresh, err}
		})
	}
	needed := (len(y.Peers)*c.level + 99) / 100
	deadline := time.NewTimer(c.wait)
	defer deadline.Stop()
	agreed := 0
	for n := 0; agreed < needed && n < len(y.Peers); n++ {
		select {
		case a := <-answers:
			if a.err == nil && !a.fresh {
				c.refuse("replayed code: a sync peer knows it")
				return StatusReplayedOTP
			}
			if a.err == nil {
				agreed++
			}
		case <-deadline.C:
			n = len(y.Peers)
		}
	}
	c.answered = 100 * agreed / len(y.Peers)
	if agreed < needed {
		c.refuse("not enough sync peers answered")
		return StatusNotEnoughAnswers
	}
	return ""
}
