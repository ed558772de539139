package undo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Where the kubelet puts a pod's credentials
// (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
const credentials = "/var/run/secrets/kubernetes.io/serviceaccount"

// An answer that is longer than this is none that we need to read.
const maxAnswer = 1 << 20

// ErrNoCredentials says that the pod has no service account's token.
var ErrNoCredentials = errors.New("the pod has no service account's token")

// InCluster is a Doer with the credentials of the pod in which it runs.
func InCluster() (Doer, error) {
	return inCluster(credentials, os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
}

func inCluster(dir, host, port string) (Doer, error) {
	if host == "" || port == "" {
		return nil, ErrNoCredentials
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCredentials, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%w: no certificate in ca.crt", ErrNoCredentials)
	}
	client := &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
	}
	server := "https://" + net.JoinHostPort(host, port)
	return func(ctx context.Context, method, path, contentType string, body []byte) (int, []byte, error) {
		token, err := os.ReadFile(filepath.Join(dir, "token")) // each time: it is renewed
		if err != nil {
			return 0, nil, fmt.Errorf("%w: %w", ErrNoCredentials, err)
		}
		return send(ctx, client, method, server+path, contentType, strings.TrimSpace(string(token)), body)
	}, nil
}

func send(ctx context.Context, client *http.Client, method, url, contentType, token string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, answer, nil
}
