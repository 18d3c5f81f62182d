package deploy

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"net"
	"strings"
	"testing"

	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/config"
)

// query is a DNS question for a name and record type.
func query(name string, kind uint16) []byte {
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0)
	q = binary.BigEndian.AppendUint16(q, kind)
	return binary.BigEndian.AppendUint16(q, 1)
}

func withHosts(t *testing.T, names map[string]string) {
	stateMu.Lock()
	old := hosts
	hosts = names
	stateMu.Unlock()
	t.Cleanup(func() {
		stateMu.Lock()
		hosts = old
		stateMu.Unlock()
	})
}

func TestDNSAnswersAddressesOfTheHostsFile(t *testing.T) {
	withHosts(t, map[string]string{"hs1": "127.16.1.1"})
	out := dnsReply(query("HS1", 1))
	if rcode := out[3] & 15; rcode != 0 || out[7] != 1 || out[2]&0x80 == 0 {
		t.Fatalf("% x", out)
	}
	if !bytes.HasSuffix(out, net.IPv4(127, 16, 1, 1).To4()) {
		t.Errorf("% x", out)
	}
	if out[0] != 0x12 || out[1] != 0x34 {
		t.Error("the answer has another ID than the question")
	}
}

func TestDNSKnowsNoOtherRecordOfAKnownNameAndNoOtherName(t *testing.T) {
	withHosts(t, map[string]string{"hs1": "127.16.1.1"})
	if out := dnsReply(query("hs1", 33)); out[3]&15 != 0 || out[7] != 0 {
		t.Errorf("SRV of a known name: % x", out)
	}
	if out := dnsReply(query("_matrix._tcp.hs1", 33)); out[3]&15 != 3 {
		t.Errorf("an unknown name: % x", out)
	}
}

func TestDNSAnswersNothingToWhatIsNoQuestion(t *testing.T) {
	answer := query("hs1", 1)
	answer[2] |= 0x80
	for _, q := range [][]byte{nil, {1, 2}, answer, query("hs1", 1)[:14], append(query("hs1", 1)[:12], 63, 'a')} {
		if out := dnsReply(q); out != nil {
			t.Errorf("% x answered by % x", q, out)
		}
	}
}

func TestTheHostsFileIsSortedByName(t *testing.T) {
	got := string(hostsFile(map[string]string{"hs2": "127.16.1.2", "hs1": "127.16.1.1"}))
	if got != "127.16.1.1 hs1\n127.16.1.2 hs2\n" {
		t.Errorf("%q", got)
	}
}

func TestAServersCertificateIsSignedForItsNameAndAddress(t *testing.T) {
	cfg := config.NewConfigFromEnvVars("deploy", "none")
	crt, key, err := leaf(cfg, "hs1", "127.16.1.1")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(crt)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cfg.CACertificate)
	for _, name := range []string{"hs1", "127.16.1.1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %s", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "hs2"}); err == nil {
		t.Error("it is good for another name")
	}
	if block, _ := pem.Decode(key); block == nil || block.Type != "PRIVATE KEY" {
		t.Error("the key is no PKCS #8 PEM")
	}
}

func TestARegistrationHasTheServicesTokensQuoted(t *testing.T) {
	got := string(registration(b.ApplicationService{ID: "a: b", HSToken: "h", ASToken: "s", URL: "http://x", SenderLocalpart: "bot"}))
	for _, want := range []string{"id: \"a: b\"\n", "hs_token: \"h\"\n", "as_token: \"s\"\n", "rate_limited: false\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}
