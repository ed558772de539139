package proxy

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Keys are a session's secrets. The agent gets HostKey, ClientPublic and Token, the client HostPublic, ClientKey and
// Token.
type Keys struct {
	// HostKey and ClientKey are private keys in PEM.
	HostKey, ClientKey []byte
	// HostPublic and ClientPublic are their public halves, as lines of authorized_keys.
	HostPublic, ClientPublic []byte
	// Token lets the client's transports find the session again. It is no authority over the session: the keys are.
	Token []byte
}

// NewKeys makes the keys of a new session.
func NewKeys() (Keys, error) {
	var k Keys
	var err error
	if k.HostKey, k.HostPublic, err = newKey(); err != nil {
		return Keys{}, err
	}
	if k.ClientKey, k.ClientPublic, err = newKey(); err != nil {
		return Keys{}, err
	}
	token := make([]byte, 32)
	if _, err := rand.Read(token); err != nil {
		return Keys{}, err
	}
	k.Token = []byte(hex.EncodeToString(token))
	return k, nil
}

// newKey makes an ed25519 key: private as PEM, public as a line of authorized_keys.
func newKey() (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		return nil, nil, err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(block), ssh.MarshalAuthorizedKey(sshPub), nil
}

// parseSigner parses a private key; what names it in errors, which never hold any of it.
func parseSigner(what string, private []byte) (ssh.Signer, error) {
	s, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("parsing the %s: %w", what, err)
	}
	return s, nil
}

// parsePublic parses a line of authorized_keys.
func parsePublic(what string, line []byte) (ssh.PublicKey, error) {
	k, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return nil, fmt.Errorf("parsing the %s: %w", what, err)
	}
	return k, nil
}

// clientConfig is the SSH configuration of a client that has k.
func (k Keys) clientConfig() (*ssh.ClientConfig, error) {
	signer, err := parseSigner("client key", k.ClientKey)
	if err != nil {
		return nil, err
	}
	host, err := parsePublic("public host key", k.HostPublic)
	if err != nil {
		return nil, err
	}
	return &ssh.ClientConfig{
		User:              sshUser,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.FixedHostKey(host),
		HostKeyAlgorithms: []string{host.Type()},
	}, nil
}

// serverConfig is the SSH configuration of an agent that has k.
func (k Keys) serverConfig() (*ssh.ServerConfig, error) {
	host, err := parseSigner("host key", k.HostKey)
	if err != nil {
		return nil, err
	}
	client, err := parsePublic("client's public key", k.ClientPublic)
	if err != nil {
		return nil, err
	}
	pinned := client.Marshal()
	cfg := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), pinned) {
				return nil, errors.New("not the session's client key")
			}
			return nil, nil
		},
	}
	cfg.AddHostKey(host)
	return cfg, nil
}
