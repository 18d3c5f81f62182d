package deploy

// The methods of complement.Deployment that tests call.

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/matrix-org/complement/client"
	"github.com/matrix-org/complement/config"
	"github.com/matrix-org/complement/ct"
	"github.com/matrix-org/complement/helpers"
	"github.com/matrix-org/gomatrixserverlib/spec"
)

func syncTimeout() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(EnvSync)); err == nil {
		return d
	}
	return 5 * time.Second
}

func (d *Deployment) get(t ct.TestLike, name string) *server {
	t.Helper()
	s, ok := d.hs[name]
	if !ok {
		ct.Fatalf(t, "deploy: no homeserver %q in this deployment", name)
	}
	return s
}

func (d *Deployment) client(t ct.TestLike, name string) *client.CSAPI {
	t.Helper()
	s := d.get(t, name)
	return client.NewCSAPI(client.CSAPIOpts{
		BaseURL:          fmt.Sprintf("http://%s:%d", s.ip, clientPort),
		Client:           client.NewLoggedClient(t, name, nil),
		SyncUntilTimeout: syncTimeout(),
		Debug:            d.cfg.DebugLoggingEnabled,
	})
}

func (d *Deployment) GetFullyQualifiedHomeserverName(t ct.TestLike, name string) spec.ServerName {
	t.Helper()
	return spec.ServerName(d.get(t, name).name)
}

func (d *Deployment) UnauthenticatedClient(t ct.TestLike, name string) *client.CSAPI {
	t.Helper()
	return d.client(t, name)
}

func (d *Deployment) Register(t ct.TestLike, name string, opts helpers.RegistrationOpts) *client.CSAPI {
	t.Helper()
	c := d.client(t, name)
	if c.Password = opts.Password; c.Password == "" {
		c.Password = defaultPassword
	}
	localpart := fmt.Sprintf("user-%d", d.users.Add(1))
	if opts.LocalpartSuffix != "" {
		localpart += "-" + opts.LocalpartSuffix
	}
	if opts.IsAdmin {
		c.UserID, c.AccessToken, c.DeviceID = c.RegisterSharedSecret(t, localpart, c.Password, true)
	} else {
		c.UserID, c.AccessToken, c.DeviceID = c.RegisterUser(t, localpart, c.Password)
	}
	return c
}

func (d *Deployment) Login(t ct.TestLike, name string, existing *client.CSAPI, opts helpers.LoginOpts) *client.CSAPI {
	t.Helper()
	c := d.client(t, name)
	localpart, _, ok := strings.Cut(strings.TrimPrefix(existing.UserID, "@"), ":")
	if !ok {
		ct.Fatalf(t, "deploy: cannot log in as %q", existing.UserID)
	}
	if c.Password = opts.Password; c.Password == "" {
		c.Password = existing.Password
	}
	var lo []client.LoginOpt
	if opts.DeviceID != "" {
		lo = append(lo, client.WithDeviceID(opts.DeviceID))
	}
	c.UserID, c.AccessToken, c.DeviceID = c.LoginUser(t, localpart, c.Password, lo...)
	return c
}

func (d *Deployment) AppServiceUser(t ct.TestLike, name, userID string) *client.CSAPI {
	t.Helper()
	token, ok := d.tokens[userID]
	if !ok && userID != "" {
		ct.Fatalf(t, "deploy: no access token for %q", userID)
	}
	c := d.client(t, name)
	c.UserID, c.AccessToken = userID, token
	return c
}

func (d *Deployment) Restart(t ct.TestLike) error {
	t.Helper()
	for _, n := range d.names() {
		d.StopServer(t, n)
		d.StartServer(t, n)
	}
	return nil
}

func (d *Deployment) StopServer(t ct.TestLike, name string) {
	t.Helper()
	t.Logf("StopServer %s", name)
	d.get(t, name).stop(d.cfg.SpawnHSTimeout)
}

func (d *Deployment) StartServer(t ct.TestLike, name string) {
	t.Helper()
	t.Logf("StartServer %s", name)
	if err := d.get(t, name).start(d.cfg); err != nil {
		ct.Fatalf(t, "StartServer: %s", err)
	}
}

func (d *Deployment) PauseServer(t ct.TestLike, name string) {
	t.Helper()
	t.Logf("PauseServer %s", name)
	if err := d.get(t, name).signal(syscall.SIGSTOP); err != nil {
		ct.Fatalf(t, "PauseServer: %s", err)
	}
}

func (d *Deployment) UnpauseServer(t ct.TestLike, name string) {
	t.Helper()
	t.Logf("UnpauseServer %s", name)
	if err := d.get(t, name).signal(syscall.SIGCONT); err != nil {
		ct.Fatalf(t, "UnpauseServer: %s", err)
	}
}

// ContainerID gives the process id: there is no container.
func (d *Deployment) ContainerID(t ct.TestLike, name string) string {
	t.Helper()
	return fmt.Sprint(d.get(t, name).cmd.Process.Pid)
}

func (d *Deployment) GetConfig() *config.Complement { return d.cfg }

func (d *Deployment) Network() string { return "" }
