package deploy

import (
	"fmt"

	"github.com/matrix-org/complement/b"
)

// registration is the application service's registration file.
func registration(as b.ApplicationService) []byte {
	return []byte(fmt.Sprintf(`id: %q
hs_token: %q
as_token: %q
url: %q
sender_localpart: %q
rate_limited: %v
de.sorunome.msc2409.push_ephemeral: %v
push_ephemeral: %v
org.matrix.msc3202: %v
namespaces:
  users:
    - exclusive: false
      regex: ".*"
  rooms: []
  aliases: []
`, as.ID, as.HSToken, as.ASToken, as.URL, as.SenderLocalpart, as.RateLimited,
		as.SendEphemeral, as.SendEphemeral, as.EnableEncryption))
}
