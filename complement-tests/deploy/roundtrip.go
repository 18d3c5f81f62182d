package deploy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
)

// RoundTripper reaches https://hsN on the federation port of this deployment.
func (d *Deployment) RoundTripper() http.RoundTripper { return roundTripper{d} }

type roundTripper struct{ d *Deployment }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	host, port := req.URL.Hostname(), req.URL.Port()
	addr := ""
	if host == r.d.cfg.HostnameRunningComplement {
		if port == "" {
			port = "443"
		}
		addr = net.JoinHostPort("127.0.0.1", port)
	} else if s, ok := r.d.hs[host]; ok {
		addr = net.JoinHostPort(s.ip, fmt.Sprint(federationPort))
	} else {
		return nil, fmt.Errorf("deploy: unknown host %q", host)
	}
	req = req.Clone(req.Context())
	req.URL.Scheme = "https"
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: host, InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
	}
	return tr.RoundTrip(req)
}
