package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const patience = 10 * time.Second

// connections makes connections with one request each, for a while, and returns
// how many.
func (r *rig) connections(s *server, clients int, slice time.Duration, resume bool) (int, error) {
	return parallel(clients, slice, func(stop <-chan struct{}) (int, error) {
		config := r.client.Clone()
		config.SessionTicketsDisabled = !resume
		if resume {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			if _, err := once(s, config); err != nil {
				return 0, err
			}
		}
		for n := 0; ; n++ {
			select {
			case <-stop:
				return n, nil
			default:
			}
			resumed, err := once(s, config)
			if err != nil {
				return n, err
			}
			if resume && s.resumes && !resumed {
				return n, errors.New("not resumed")
			}
		}
	})
}

// once opens a connection, makes a request and closes it.
func once(s *server, config *tls.Config) (resumed bool, err error) {
	c, err := dial(s, config)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := request(c, bufio.NewReader(c), s.guarded); err != nil {
		return false, err
	}
	return c.ConnectionState().DidResume, nil
}

func dial(s *server, config *tls.Config) (*tls.Conn, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.address, config)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// requests makes requests on connections that stay, for a while, and returns
// how many.
func (r *rig) requests(s *server, clients int, slice time.Duration) (int, error) {
	return parallel(clients, slice, func(stop <-chan struct{}) (int, error) {
		c, err := dial(s, r.client)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience + slice)); err != nil {
			return 0, err
		}
		in := bufio.NewReader(c)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return n, nil
			default:
			}
			if err := request(c, in, s.guarded); err != nil {
				return n, err
			}
		}
	})
}

// request makes one GET and reads the answer, which must be the page.
func request(c io.Writer, in *bufio.Reader, path string) error {
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	status, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200") {
		return fmt.Errorf("answer %q", strings.TrimSpace(status))
	}
	length := -1
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	if length != len(page) {
		return fmt.Errorf("the page has %d bytes", length)
	}
	_, err = in.Discard(length)
	return err
}

// parallel runs work on some clients at once and adds up what they did.
func parallel(clients int, slice time.Duration, work func(stop <-chan struct{}) (int, error)) (int, error) {
	stop := make(chan struct{})
	timer := time.AfterFunc(slice, func() { close(stop) })
	defer timer.Stop()
	var total atomic.Int64
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			n, err := work(stop)
			total.Add(int64(n))
			if err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return int(total.Load()), first
}
