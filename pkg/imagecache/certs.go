package imagecache

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// PeerName is the name in the certificate that all nodes of a cluster share.
const PeerName = "telepresence-imagecache"

// Validity is how long a certificate is good for.
const Validity = 365 * 24 * time.Hour

// Certificates are what the nodes know each other by, in PEM. The authority's
// key is not among them: it signs one certificate and is forgotten.
type Certificates struct {
	Authority []byte
	Cert, Key []byte
}

// NewCertificates makes an authority and the nodes' certificate, good from now
// for Validity. The authorities in before go on being trusted: while the nodes
// learn of the new one, some still have the old.
func NewCertificates(now time.Time, before []byte) (Certificates, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Certificates{}, fmt.Errorf("making certificates: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: PeerName + " authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(Validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return Certificates{}, fmt.Errorf("making certificates: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Certificates{}, fmt.Errorf("making certificates: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: PeerName}, DNSNames: []string{PeerName},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return Certificates{}, fmt.Errorf("making certificates: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Certificates{}, fmt.Errorf("making certificates: %w", err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	if first, _ := pem.Decode(before); first != nil { // of several, the latest comes first
		authority = append(authority, pem.EncodeToMemory(first)...)
	}
	return Certificates{
		Authority: authority,
		Cert:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		Key:       pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// Expires is when the certificate ends.
func (c Certificates) Expires() (time.Time, error) {
	block, _ := pem.Decode(c.Cert)
	if block == nil {
		return time.Time{}, errors.New("no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the certificate: %w", err)
	}
	return cert.NotAfter, nil
}

// The files that certificates are in.
const (
	AuthorityFile = "ca.crt"
	CertFile      = "tls.crt"
	KeyFile       = "tls.key"
)

// ReadCertificates reads the three files from a folder.
func ReadCertificates(dir string) (Certificates, error) {
	var c Certificates
	for name, into := range map[string]*[]byte{AuthorityFile: &c.Authority, CertFile: &c.Cert, KeyFile: &c.Key} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return c, fmt.Errorf("reading the certificates: %w", err)
		}
		*into = text
	}
	return c, nil
}

// Equal tells whether they are the same.
func (c Certificates) Equal(o Certificates) bool {
	return bytes.Equal(c.Authority, o.Authority) && bytes.Equal(c.Cert, o.Cert) && bytes.Equal(c.Key, o.Key)
}

// TLS is the configuration of both ends of a connection between peers: each
// must show a certificate of the authority's.
func (c Certificates) TLS() (*tls.Config, error) {
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.Authority) {
		return nil, errors.New("reading the certificates: no authority in " + AuthorityFile)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, ServerName: PeerName,
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}
