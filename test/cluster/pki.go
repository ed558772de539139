package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// certificateLife is how long the cluster's certificates hold.
const certificateLife = 365 * 24 * time.Hour

// An authority signs every certificate of one cluster: servers', components'
// and users'.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// A credential is a certificate and its key, PEM.
type credential struct{ certificate, key string }

// A subject is whom a certificate is for; with addresses or names it is a
// server's too.
type subject struct {
	name      string
	groups    []string
	addresses []string
	hosts     []string
}

// authority reads the cluster's authority, or makes it.
func (c *cluster) authority() (*authority, error) {
	certificatePEM, errCert := os.ReadFile(c.path("pki", "ca.crt"))
	keyPEM, errKey := os.ReadFile(c.path("pki", "ca.key"))
	if errCert != nil || errKey != nil {
		return c.newAuthority()
	}
	certificateBlock, _ := pem.Decode(certificatePEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certificateBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("reading the certificate authority in %s: not PEM", c.path("pki"))
	}
	certificate, err := x509.ParseCertificate(certificateBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.path("pki", "ca.crt"), err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.path("pki", "ca.key"), err)
	}
	return &authority{certificate: certificate, key: key}, nil
}

func (c *cluster) newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "telepresence test cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{certificate: certificate, key: key}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := c.write(a.pem(), "pki", "ca.crt"); err != nil {
		return nil, err
	}
	return a, c.write(keyPEM, "pki", "ca.key")
}

// pem is the authority's own certificate.
func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

func encodeKey(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), nil
}

// issue makes a key and signs a certificate for it.
func (a *authority) issue(s subject) (credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return credential{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return credential{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.name, Organization: s.groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: s.hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, address := range s.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return credential{}, fmt.Errorf("signing the certificate of %s: %w", s.name, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return credential{}, err
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return credential{certificate: certificate, key: keyPEM}, nil
}

// kubeconfig is a configuration that holds all it needs in itself.
func (a *authority) kubeconfig(n network, s subject, namespace string) (string, error) {
	credential, err := a.issue(s)
	if err != nil {
		return "", err
	}
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %[3]s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: test
  context:
    cluster: test
    user: %[3]s
    namespace: %[6]s
current-context: test
`, n.server(), encode(a.pem()), s.name, encode(credential.certificate), encode(credential.key), namespace), nil
}
