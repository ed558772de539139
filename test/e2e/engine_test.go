package e2e

import (
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
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// elsewhere has DOCKER_HOST, or with -tls the files of a docker context, lead to
// the engine's socket by way of a TCP port, so that it is elsewhere for who goes
// by the address.
func (s *script) elsewhere(ts *testscript.TestScript, args []string) (string, error) {
	socket, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	if !ok || len(args) > 1 || len(args) == 1 && args[0] != "-tls" {
		return "", errors.New("usage: elsewhere [-tls], where DOCKER_HOST is a unix socket")
	}
	l := &line{network: "unix", target: socket, conns: map[net.Conn]bool{}}
	var err error
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return "", err
	}
	address := "tcp://" + l.listener.Addr().String()
	if len(args) == 0 {
		ts.Setenv("DOCKER_HOST", address)
	} else {
		config, err := writeCertificates(s.folder)
		if err != nil {
			return "", errors.Join(err, l.listener.Close())
		}
		l.listener = tls.NewListener(l.listener, config)
		ts.Setenv("DOCKER_HOST", "")
		ts.Setenv("ENGINE", address)
	}
	l.all.Go(l.accept)
	s.engines = append(s.engines, l)
	return "", nil
}

// writeCertificates writes ca.pem, cert.pem and key.pem for a client, and returns
// what a server goes by that takes no other.
func writeCertificates(folder string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "engine"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{
		"ca.pem": certificate, "cert.pem": certificate, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			return nil, fmt.Errorf("writing a certificate: %w", err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12,
	}, nil
}
