package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attempt is one request, sent byte for byte as it says.
type attempt struct {
	proto   string // "1.0", "1.1" or "2"
	version uint16 // of TLS; 0 is plain TCP
	sni     string
	host    string // "" sends none
	target  string
	who     *holder
	headers []string // "Name: value"
	method  string   // default GET
	cache   tls.ClientSessionCache
}

// answer is what came back. A connection that was cut has status 0.
type answer struct {
	status  int
	header  http.Header
	body    string
	resumed bool
}

const patience = time.Minute

// try makes an attempt against a port of 127.0.0.1.
func (h *rig) try(port int, a attempt) (answer, error) {
	raw, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
	if err != nil {
		return answer{}, err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	if a.method == "" {
		a.method = "GET"
	}
	if a.version == 0 {
		return http1(raw, a)
	}
	config := h.clientConfig(a.who)
	config.MinVersion, config.MaxVersion, config.ServerName, config.ClientSessionCache = a.version, a.version, a.sni,
		a.cache
	config.NextProtos = []string{"http/1.1"}
	if a.proto == "2" {
		config.NextProtos = []string{"h2"}
	}
	if a.sni == "" {
		config.InsecureSkipVerify = true // there is no name to verify
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(context.Background()); err != nil {
		return answer{}, err
	}
	var got answer
	if a.proto == "2" {
		got, err = newHTTP2(c).do(a)
	} else {
		got, err = http1(c, a)
	}
	got.resumed = c.ConnectionState().DidResume
	return got, err
}

func http1(c net.Conn, a attempt) (answer, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/%s\r\n", a.method, a.target, a.proto)
	if a.host != "" {
		fmt.Fprintf(&b, "Host: %s\r\n", a.host)
	}
	for _, h := range a.headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("Connection: close\r\n\r\n")
	if _, err := c.Write(b.Bytes()); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: a.method})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(body)}, err
}

// http2Conn is a small HTTP/2 client that sends any pseudo-header as it is.
type http2Conn struct {
	c      net.Conn
	f      *http2.Framer
	buf    bytes.Buffer
	enc    *hpack.Encoder
	dec    *hpack.Decoder
	stream uint32
	ready  bool
}

func newHTTP2(c net.Conn) *http2Conn {
	h := &http2Conn{c: c, f: http2.NewFramer(c, c), stream: 1}
	h.enc = hpack.NewEncoder(&h.buf)
	h.dec = hpack.NewDecoder(4096, nil)
	return h
}

func (h *http2Conn) do(a attempt) (answer, error) {
	stream, err := h.start(a, true)
	if err != nil {
		return answer{}, err
	}
	return h.read(stream)
}

// start sends the request's header, which is all of it if it ends.
func (h *http2Conn) start(a attempt, ends bool) (stream uint32, err error) {
	if !h.ready {
		h.ready = true
		if _, err := io.WriteString(h.c, http2.ClientPreface); err != nil {
			return 0, err
		}
		if err := h.f.WriteSettings(); err != nil {
			return 0, err
		}
	}
	h.buf.Reset()
	write := func(name, value string) { _ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	write(":method", a.method)
	write(":scheme", "https")
	if a.host != "" {
		write(":authority", a.host)
	}
	write(":path", a.target)
	for _, line := range a.headers {
		name, value, _ := strings.Cut(line, ": ")
		write(strings.ToLower(name), value)
	}
	stream = h.stream
	h.stream += 2
	return stream, h.f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: h.buf.Bytes(),
		EndStream: ends, EndHeaders: true,
	})
}

func (h *http2Conn) read(stream uint32) (answer, error) {
	got := answer{header: make(http.Header)}
	for {
		frame, err := h.f.ReadFrame()
		if err != nil {
			return got, err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := h.f.WriteSettingsAck(); err != nil {
					return got, err
				}
			}
		case *http2.HeadersFrame:
			fields, err := h.dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				return got, err
			}
			for _, field := range fields {
				got.header.Add(field.Name, field.Value)
			}
			if s := got.header.Get(":status"); s != "" {
				got.status, _ = strconv.Atoi(s)
			}
			if f.StreamEnded() && f.StreamID == stream {
				return got, nil
			}
		case *http2.DataFrame:
			got.body += string(f.Data())
			if f.StreamEnded() && f.StreamID == stream {
				return got, nil
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return got, nil // refused as malformed
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return got, errors.New(f.ErrCode.String())
			}
		}
	}
}
