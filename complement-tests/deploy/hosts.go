package deploy

import (
	"bytes"
	"fmt"
	"os"
	"sort"

	"github.com/matrix-org/complement/config"
	"github.com/matrix-org/complement/ct"
)

// writeHosts points hs1..hsN at the newest live deployment.
func writeHosts(t ct.TestLike, cfg *config.Complement) {
	t.Helper()
	path := os.Getenv(EnvHosts)
	if path == "" {
		ct.Fatalf(t, "deploy: %s is not set: run the tests through go test -exec nsexec.sh", EnvHosts)
	}
	stateMu.Lock()
	defer stateMu.Unlock()
	hosts = map[string]string{"localhost": "127.0.0.1", cfg.HostnameRunningComplement: "127.0.0.1"}
	for _, d := range live { // later ones win
		for n, s := range d.hs {
			hosts[n] = s.ip
		}
	}
	// written in place: it is a bind mount
	if err := os.WriteFile(path, hostsFile(hosts), 0o644); err != nil {
		ct.Fatalf(t, "deploy: %s", err)
	}
}

// hostsFile is the text of an /etc/hosts with these names.
func hostsFile(addresses map[string]string) []byte {
	names := make([]string, 0, len(addresses))
	for n := range addresses {
		names = append(names, n)
	}
	sort.Strings(names)
	var out bytes.Buffer
	for _, n := range names {
		fmt.Fprintf(&out, "%s %s\n", addresses[n], n)
	}
	return out.Bytes()
}
