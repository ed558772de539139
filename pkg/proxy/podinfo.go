package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/crypto/ssh"
)

// PodInfo is what the agent knows of the container it runs in.
type PodInfo struct {
	// Version is the agent's.
	Version string `json:"version"`
	// Hostname is the pod's.
	Hostname string `json:"hostname"`
	// Environ is the environment the kubelet started the agent with, in "K=V" form.
	Environ []string `json:"environ"`
	// ImageEnviron is the environment that the image of the user's container sets, if the pod was made to find out.
	ImageEnviron []string `json:"imageEnviron,omitempty"`
	// ResolvConf and Hosts are the contents of /etc/resolv.conf and /etc/hosts.
	ResolvConf string `json:"resolvConf"`
	Hosts      string `json:"hosts"`
	// Mounts are the pod's volumes in the container, ordered by path.
	Mounts []Mount `json:"mounts"`
	// Addresses are the pod's, without loopback and link-local ones.
	Addresses []netip.Addr `json:"addresses"`
	// UID and GID are the agent's.
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// Mount is a volume of the pod in the container.
type Mount struct {
	// Path is where it lies.
	Path string `json:"path"`
	// Type is the file system's ("tmpfs", "ext4").
	Type string `json:"type"`
	// ReadOnly says that it was mounted so.
	ReadOnly bool `json:"readOnly"`
	// File says that it is a single file, not a directory.
	File bool `json:"file"`
}

// PodInfo asks the agent what it knows of its container.
func (c *Client) PodInfo(ctx context.Context) (PodInfo, error) {
	var info PodInfo
	text, err := c.collect(ctx, channelPodInfo, nil)
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err != nil {
		return PodInfo{}, fmt.Errorf("asking the agent about its pod: %w", err)
	}
	return info, nil
}

// openPodInfo is the agent's end of PodInfo.
func (s *session) openPodInfo(_ context.Context, nc ssh.NewChannel) {
	info, err := readPodInfo(s.version)
	var text []byte
	if err == nil {
		text, err = json.Marshal(info)
	}
	if err != nil {
		refuse(nc, err)
		return
	}
	s.answer(nc, text)
}

func readPodInfo(version string) (PodInfo, error) {
	info := PodInfo{Version: version, Environ: os.Environ(), UID: os.Getuid(), GID: os.Getgid()}
	var err error
	if info.Hostname, err = os.Hostname(); err != nil {
		return info, err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return info, err
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !os.IsNotExist(err) {
		return info, err
	}
	image, err := os.ReadFile(ImageDir + "/environ")
	if err != nil && !os.IsNotExist(err) {
		return info, err
	}
	if len(image) > 0 {
		if err := json.Unmarshal(image, &info.ImageEnviron); err != nil {
			return info, fmt.Errorf("reading the image's environment: %w", err)
		}
	}
	info.ResolvConf, info.Hosts = string(resolv), string(hosts)
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil && !os.IsNotExist(err) {
		return info, err
	}
	info.Mounts = parseMounts(string(table))
	for i, m := range info.Mounts {
		info.Mounts[i].File = isFile(m.Path)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return info, err
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			info.Addresses = append(info.Addresses, p.Addr())
		}
	}
	return info, nil
}

// answer accepts nc, sends text and ends.
func (s *session) answer(nc ssh.NewChannel, text []byte) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	if err := writeChannel(&s.tunnel, ch, text); err == nil {
		_ = ch.CloseWrite() // fails only when ch has ended
	}
	_ = ch.Close() // likewise
	ssh.DiscardRequests(reqs)
}
