// Package deploy runs Complement's homeservers as local processes.
//
// Start at [New]: a deployment is a set of homeservers hs1..hsN, each one process with a loopback
// address of its own, its data folder, certificate and log. [Deployment] satisfies
// complement.Deployment structurally and does not import complement's root package, so that the
// overlay file inside that package can import this one without a cycle.
//
// It only works inside the namespaces that nsexec.sh makes: it rewrites /etc/hosts and listens on
// fixed ports.
package deploy

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/client"
	"github.com/matrix-org/complement/config"
	"github.com/matrix-org/complement/ct"
)

const (
	clientPort      = 8008
	federationPort  = 8448
	defaultPassword = "complement_meets_min_password_req"
)

// Environment read by the deployer.
const (
	EnvCommand  = "COMPLEMENT_HS_CMD"       // run with sh -c, once per homeserver
	EnvWorkDir  = "COMPLEMENT_WORK_DIR"     // data and logs go under here
	EnvHosts    = "COMPLEMENT_HOSTS_FILE"   // the writable file seen as /etc/hosts
	EnvKeepData = "COMPLEMENT_KEEP_DATA"    // 1: keep data folders of passed tests
	EnvSync     = "COMPLEMENT_SYNC_TIMEOUT" // how long MustSyncUntil waits; 5s as upstream
)

// stopGrace is what a server gets between SIGTERM and SIGKILL when the package ends.
const stopGrace = 10 * time.Second

// Deployment is one set of homeservers, hs1..hsN.
type Deployment struct {
	cfg    *config.Complement
	id     int
	dir    string
	dirty  bool
	hs     map[string]*server
	tokens map[string]string
	users  atomic.Int64
}

var (
	stateMu sync.Mutex
	nextID  int
	hosts   map[string]string // name to address, as in the hosts file
	live    []*Deployment     // the last one owns the names in the hosts file
	pool    *Deployment       // the reused deployment of dirty runs
)

// Cleanup ends what is still running, the reused deployment among it.
func Cleanup() {
	stateMu.Lock()
	defer stateMu.Unlock()
	for _, d := range live {
		for _, s := range d.hs {
			s.stop(stopGrace)
		}
	}
}

// New is the function for complement's custom deployment hook.
func New(t ct.TestLike, numServers int, cfg *config.Complement) *Deployment {
	t.Helper()
	if !cfg.EnableDirtyRuns {
		d := create(t, cfg, t.Name())
		for i := 1; i <= numServers; i++ {
			d.add(t, fmt.Sprintf("hs%d", i), nil)
		}
		d.mustStartAll(t)
		return d
	}
	stateMu.Lock()
	d := pool
	stateMu.Unlock()
	if d == nil {
		d = create(t, cfg, "dirty")
		d.dirty = true
		stateMu.Lock()
		pool = d
		stateMu.Unlock()
	}
	for i := len(d.hs) + 1; i <= numServers; i++ {
		d.add(t, fmt.Sprintf("hs%d", i), nil)
	}
	d.mustStartAll(t)
	return d
}

// NewBlueprint deploys a blueprint: servers, application services and users.
// Rooms in blueprints are not supported (no test uses them).
func NewBlueprint(t ct.TestLike, bp b.Blueprint, cfg *config.Complement) *Deployment {
	t.Helper()
	d := create(t, cfg, t.Name())
	for _, h := range bp.Homeservers {
		if len(h.Rooms) > 0 {
			ct.Fatalf(t, "blueprint %s has rooms: not supported", bp.Name)
		}
		d.add(t, h.Name, h.ApplicationServices)
	}
	d.mustStartAll(t)
	for _, h := range bp.Homeservers {
		for _, as := range h.ApplicationServices {
			d.tokens["@"+as.SenderLocalpart+":"+h.Name] = as.ASToken
		}
		for _, u := range h.Users {
			c := d.client(t, h.Name)
			c.UserID, c.AccessToken, c.DeviceID = c.RegisterUser(t, u.Localpart, defaultPassword)
			d.tokens[c.UserID] = c.AccessToken
			if u.DisplayName != "" {
				c.MustSetDisplayName(t, u.DisplayName)
			}
		}
	}
	return d
}

func create(t ct.TestLike, cfg *config.Complement, label string) *Deployment {
	t.Helper()
	root := os.Getenv(EnvWorkDir)
	if root == "" {
		root = filepath.Join(os.TempDir(), "complement-work")
	}
	stateMu.Lock()
	defer stateMu.Unlock()
	nextID++
	safe := regexp.MustCompile(`[^A-Za-z0-9_.-]+`).ReplaceAllString(label, "_")
	if len(safe) > 80 {
		safe = safe[:80]
	}
	d := &Deployment{
		cfg: cfg, id: nextID, hs: map[string]*server{}, tokens: map[string]string{},
		dir: filepath.Join(root, cfg.PackageNamespace, fmt.Sprintf("%03d-%s", nextID, safe)),
	}
	live = append(live, d)
	return d
}

// add prepares (without starting) one homeserver.
func (d *Deployment) add(t ct.TestLike, name string, services []b.ApplicationService) {
	t.Helper()
	s := &server{
		name: name,
		// every deployment has addresses of its own: 127.16.x.y and up
		ip:  fmt.Sprintf("127.%d.%d.%d", 16+d.id/250, d.id%250, len(d.hs)+1),
		dir: filepath.Join(d.dir, name),
	}
	s.logPath = filepath.Join(d.dir, name+".log")
	for _, sub := range []string{"data", "tls", "appservice"} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o755); err != nil {
			ct.Fatalf(t, "deploy: %s", err)
		}
	}
	ca, err := d.cfg.CACertificateBytes()
	if err != nil {
		ct.Fatalf(t, "deploy: %s", err)
	}
	caKey, err := d.cfg.CAPrivateKeyBytes()
	if err != nil {
		ct.Fatalf(t, "deploy: %s", err)
	}
	crt, key, err := leaf(d.cfg, name, s.ip)
	if err != nil {
		ct.Fatalf(t, "deploy: certificate for %s: %s", name, err)
	}
	files := map[string][]byte{
		"tls/ca.crt": ca, "tls/ca.key": caKey, "tls/server.crt": crt, "tls/server.key": key,
	}
	for _, as := range services {
		files["appservice/"+as.ID+".yaml"] = registration(as)
	}
	for p, body := range files {
		if err := os.WriteFile(filepath.Join(s.dir, p), body, 0o600); err != nil {
			ct.Fatalf(t, "deploy: %s", err)
		}
	}
	s.env = append(os.Environ(),
		"SERVER_NAME="+name,
		"HS_BIND_IP="+s.ip,
		fmt.Sprintf("HS_CLIENT_PORT=%d", clientPort),
		fmt.Sprintf("HS_FEDERATION_PORT=%d", federationPort),
		fmt.Sprintf("HS_PUBLIC_BASEURL=http://%s:%d", s.ip, clientPort),
		"HS_DATA_DIR="+filepath.Join(s.dir, "data"),
		"HS_CA_CERT="+filepath.Join(s.dir, "tls/ca.crt"),
		"HS_CA_KEY="+filepath.Join(s.dir, "tls/ca.key"),
		"HS_TLS_CERT="+filepath.Join(s.dir, "tls/server.crt"),
		"HS_TLS_KEY="+filepath.Join(s.dir, "tls/server.key"),
		"HS_APPSERVICE_DIR="+filepath.Join(s.dir, "appservice"),
		"HS_REGISTRATION_SHARED_SECRET="+client.SharedSecret,
	)
	d.hs[name] = s
	serveDNS()
	writeHosts(t, d.cfg)
}

func (d *Deployment) names() []string {
	var out []string
	for n := range d.hs {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// mustStartAll starts, side by side, every server that does not run. In a reused deployment that
// includes one which an earlier test stopped and, failing, never started again.
func (d *Deployment) mustStartAll(t ct.TestLike) {
	t.Helper()
	begin, started := time.Now(), 0
	errs := make(chan error, len(d.hs))
	for _, s := range d.hs {
		if s.running() {
			continue
		}
		started++
		go func() { errs <- s.start(d.cfg) }()
	}
	var failed []error
	for i := 0; i < started; i++ {
		if err := <-errs; err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		ct.Fatalf(t, "deploy: %s", errors.Join(failed...))
	}
	if started > 0 {
		t.Logf("Deploy: started %d server(s) in %v, logs in %s", started, time.Since(begin), d.dir)
	}
}

func (d *Deployment) Destroy(t ct.TestLike) {
	t.Helper()
	if d.dirty {
		return
	}
	for _, s := range d.hs {
		s.stop(0)
	}
	if d.cfg.AlwaysPrintServerLogs || t.Failed() {
		for _, n := range d.names() {
			log.Printf("server log of %s: %s", n, d.hs[n].logPath)
		}
	}
	if !t.Failed() && os.Getenv(EnvKeepData) != "1" {
		os.RemoveAll(d.dir)
	}
	stateMu.Lock()
	for i := range live {
		if live[i] == d {
			live = append(live[:i:i], live[i+1:]...)
			break
		}
	}
	stateMu.Unlock()
	writeHosts(t, d.cfg)
}
